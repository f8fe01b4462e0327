# Two commands on a fresh machine: `make demo` and `make test`. Both need Rust, Python 3, a C compiler and apt.

.PHONY: demo demo-check test test-containers compose-demo deb test-packages bench bench-forward bench-django soak autobahn instructions lint docs clean

demo:            ## a real Django behind the edge, until Ctrl-C; ACME=1: with a certificate from a CA (pebble)
	@scripts/demo

demo-check:      ## the same, tried by a script that ends with 0 or 1
	@scripts/demo --check

test:            ## everything that needs no container engine
	@scripts/test

test-containers: ## what needs a Docker engine
	@scripts/test-containers

compose-demo:    ## deploy/compose.yaml on this machine, until Ctrl-C: the edge, two Djangos, PostgreSQL, Redis
	@scripts/compose-demo

deb:             ## build/deb/vestibule_VERSION_ARCH.deb: the release binary, unit, manual, completions, bill of materials
	@scripts/deb

test-packages:   ## lintian, the unit's hardening, and the package's life in a clean Debian (root)
	@scripts/test-packages

bench:           ## beside current nginx and HAProxy: processor time a request, latency, memory, many sites, many connections (ROUNDS=5 PEERS=nginx,haproxy|all ROWS=static PARTS=sites EDGE=binary)
	@scripts/bench

bench-django:    ## before a real Django, beside nginx: slow clients, retiring workers, deploys, addresses that move, events, a gibibyte (ONLY=shield EDGE=binary)
	@scripts/bench-django

soak:            ## reloads and upgrades, well and badly, under 2,000 requests a second: memory and descriptors drawn (MINUTES=3 RATE=2000)
	@scripts/soak

autobahn:        ## the Autobahn test suite, some of every group of cases, behind the edge as without it (CASES=all|1.*,7.1.1 EDGE=binary)
	@scripts/autobahn

bench-forward:   ## forward rows beside HAProxy and nginx's stream, with pgbench and redis-benchmark (ROUNDS=5)
	@scripts/bench-forward

instructions:    ## instructions a request, beside the baseline in the repository; needs no quiet machine
	@scripts/instructions

lint:            ## format and clippy, as CI holds them
	@cargo fmt --check
	@cargo clippy --locked --all-targets -- -D warnings

docs:            ## the crate's map and API
	@RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

clean:           ## everything that was built
	@rm -rf build target
