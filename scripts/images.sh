# Sourced after lib.sh. What deploy/compose.yaml takes from a registry, or, where none is reached, the like of it made of
# Debian's packages.
# shellcheck shell=bash

images=$build/containers

need_engine() {
    docker info >/dev/null 2>&1 && return
    echo "No Docker engine answers: start one, then run this again." >&2
    exit 2
}

# A project of its own for deploy/compose.yaml: PROJECT, two free ports of loopback, new secrets; below the folder $1.
prepare_project() {
    export PROJECT=$2 SECRETS=$1/secrets EDGE_CONFIG=$root/deploy/edge
    export COMPOSE_PROJECT_NAME=$2 COMPOSE_FILE=$root/deploy/compose.yaml
    local ports
    ports=$(python3 -c 'import socket
open = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in open))')
    export HTTP_PORT=127.0.0.1:${ports% *} HTTPS_PORT=127.0.0.1:${ports#* }
    # The folder keeps them from other users; the containers' users read the files.
    (umask 077 && mkdir -p "$SECRETS")
    for name in django_key postgres_password; do head -c 36 /dev/urandom | base64 -w0 >"$SECRETS/$name"; done
    chmod 644 "$SECRETS"/*
}

# Takes the project down, with all that it made.
end_project() {
    "${compose[@]}" down --volumes --remove-orphans --timeout 10 >>"$images/compose.log" 2>&1 || true
    docker rmi "$PROJECT-edge" "$PROJECT-django" >/dev/null 2>&1 || true
}

# compose_do ARGUMENTS…: quiet unless it fails.
compose_do() {
    "${compose[@]}" "$@" >>"$images/compose.log" 2>&1 && return
    echo "FAILED: ${compose[*]} $*" >&2
    tail -n 20 "$images/compose.log" >&2
    return 1
}

# Sets compose=(…) to this machine's Compose: v2, or the older docker-compose.
find_compose() {
    if docker compose version >/dev/null 2>&1; then compose=(docker compose); return; fi
    need docker-compose=docker-compose
    # shellcheck disable=SC2034 # for whoever sources this
    compose=(docker-compose)
}

# The edge's binary where deploy/Dockerfile may take it from, without what a debugger would read.
stage_edge() {
    need strip=binutils
    mkdir -p "$images"
    strip -o "$images/vestibule" "$1"
    export VESTIBULE_BINARY=build/containers/vestibule
}

# Sets the images' names for compose.yaml, and makes each that is missing; they stay for the next time.
local_images() {
    export DEBIAN_IMAGE=vestibule-local/debian PYTHON_IMAGE=vestibule-local/python
    export POSTGRES_IMAGE=vestibule-local/postgres REDIS_IMAGE=vestibule-local/debian
    debian_image
    python_image
    postgres_image
}

# One root for all: whatever a service needs is a package of it.
debian_image() {
    made_of "$DEBIAN_IMAGE" "$(declare -f debian_image)" && return
    need_root_and_mirror "a container's root" "make test-containers"
    say "a container's root, of Debian's packages"
    local folder=$images/debian
    mkdir -p "$images"
    rm -rf "$folder"
    debootstrap --variant=minbase --include=ca-certificates,python3,postgresql,redis-server,nginx-light \
        "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$folder" "$mirror" >"$images/debootstrap.log" 2>&1 ||
        { tail -n 5 "$images/debootstrap.log" >&2; exit 1; }
    tar -C "$folder" --exclude=./var/cache --exclude=./usr/share/{doc,man,locale,i18n} --exclude=./var/lib/apt/lists \
        --exclude=EXTERNALLY-MANAGED --exclude=./var/lib/postgresql/15 -c . |
        docker import --change "LABEL made_of=$stamp" - "$DEBIAN_IMAGE" >/dev/null
    rm -rf "$folder"
}

# `python`, its pip, and the requirements, so that installing them finds them there.
python_image() {
    made_of "$PYTHON_IMAGE" "$stamp $(declare -f python_image; cat "$root/tests/django/requirements.txt")" && return
    need_django
    say "Python and the requirements"
    local folder=$images/python version
    version=$(docker run --rm "$DEBIAN_IMAGE" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    rm -rf "$folder"
    "$build/venv/bin/pip" install --quiet --no-input --only-binary=:all: --python-version "$version" --no-compile \
        --target "$folder/packages" --requirement "$root/tests/django/requirements.txt" pip
    printf '%s\n' "FROM $DEBIAN_IMAGE" "COPY packages /usr/local/lib/python$version/dist-packages" \
        "ENV PIP_NO_INDEX=1" "COPY gunicorn /usr/local/bin/" "RUN ln -s /usr/bin/python3 /usr/local/bin/python" "LABEL made_of=$stamp" \
        >"$folder/Dockerfile"
    printf '#!/bin/sh\nexec python -m gunicorn "$@"\n' >"$folder/gunicorn"
    chmod 755 "$folder/gunicorn"
    build_image "$PYTHON_IMAGE" "$folder"
}

# As much of the official image's ways as compose.yaml needs.
postgres_image() {
    made_of "$POSTGRES_IMAGE" "$(docker image inspect -f '{{.Id}}' "$DEBIAN_IMAGE"; declare -f postgres_image)" && return
    local folder=$images/postgres programs
    programs=$(docker run --rm "$DEBIAN_IMAGE" sh -c 'echo /usr/lib/postgresql/*/bin')
    mkdir -p "$folder"
    cat >"$folder/start" <<'SH'
#!/bin/sh
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb -U "$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth=scram-sha-256 --encoding=UTF8 --locale=C
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl -w -o "-c listen_addresses=''" start
    PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE") createdb -U "$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl -w stop
fi
exec postgres -c listen_addresses='*'
SH
    chmod 755 "$folder/start"
    printf '%s\n' "FROM $DEBIAN_IMAGE" "ENV PATH=$programs:/usr/bin:/bin PGDATA=/var/lib/postgresql/data" \
        "COPY start /usr/local/bin/start" 'RUN install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/data && chmod 3777 /run/postgresql' \
        "STOPSIGNAL SIGINT" 'ENTRYPOINT ["/usr/local/bin/start"]' "LABEL made_of=$stamp" >"$folder/Dockerfile"
    build_image "$POSTGRES_IMAGE" "$folder"
}

build_image() {
    docker build -q -t "$1" "$2" >"$images/build.log" 2>&1 || { tail -n 5 "$images/build.log" >&2; exit 1; }
}

# made_of IMAGE SOURCES: sets $stamp to the checksum of the sources; whether the image is there and was made of them.
made_of() {
    stamp=$(printf '%s' "$2" | sha256sum | cut -c1-16)
    [ "$(docker image inspect -f '{{index .Config.Labels "made_of"}}' "$1" 2>/dev/null)" = "$stamp" ]
}
