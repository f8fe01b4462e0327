"""One page, and what a proxy finds hard: uploads, downloads, event streams, slow answers."""

import asyncio
import hashlib
import mimetypes
import time
from urllib.parse import quote

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils.http import content_disposition_header
from django.views.decorators.csrf import csrf_exempt, ensure_csrf_cookie
from django.views.decorators.http import require_POST

from front import visits

MIB = 1 << 20
DOWNLOAD_SIZE = 64 * MIB
DOWNLOAD_SHA256 = "6c13f7c05aa9ad2f612da9c6a55fbfd43014f2f158f0b1c8d554baed514467bd"


@ensure_csrf_cookie
def page(request):
    """What Django sees of the request, and the things to try."""
    seen = {
        "scheme": request.scheme,
        "is_secure": request.is_secure(),
        "host": request.get_host(),
        "client address": request.headers.get("X-Real-IP", "not told"),
        "X-Forwarded-For": request.headers.get("X-Forwarded-For", "not told"),
        "request id": request.headers.get("X-Request-ID", "not told"),
        "method": request.method,
    }
    if visits.COUNTED:
        seen |= visits.seen()
    return render(request, "page.html", {"seen": seen, "sha256": DOWNLOAD_SHA256})


@require_POST
def upload(request):
    """The size and checksum of the file `file`. The CSRF check holds Origin against Host and scheme."""
    file = request.FILES.get("file")
    if file is None:
        return JsonResponse({"error": "no file in the field `file`"}, status=400)
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    return JsonResponse({"name": file.name, "size": file.size, "sha256": digest.hexdigest()})


def download(request):
    """64 MiB that are the same every time."""
    response = StreamingHttpResponse(
        _async(download_blocks()) if isinstance(request, ASGIRequest) else download_blocks(),
        content_type="application/octet-stream",
        headers={"Content-Disposition": 'attachment; filename="vestibule.bin"'},
    )
    response["Content-Length"] = str(DOWNLOAD_SIZE)
    return response


def download_blocks():
    """The download, a mebibyte at a time; no two blocks are equal."""
    base = hashlib.shake_128(b"vestibule").digest(MIB - 8)
    for number in range(DOWNLOAD_SIZE // MIB):
        yield number.to_bytes(8, "big") + base


def protected(request, name):
    """What would be a FileResponse: Django has decided who may read the file, and the edge sends it."""
    response = HttpResponse(content_type=mimetypes.guess_type(name)[0] or "application/octet-stream")
    response["Content-Disposition"] = content_disposition_header(True, name)
    response["Cache-Control"] = "private"
    response["X-Accel-Redirect"] = "/protected/" + quote(name)
    response.set_cookie("downloaded", "yes")
    return response


async def events(request):
    """Server-sent events: one at once, then one every `every` seconds (default 1), `count` in all (default 10)."""
    count = int(request.GET.get("count", 10))
    every = float(request.GET.get("every", 1))

    async def stream():
        for number in range(count):
            yield f"id: {number}\ndata: event {number}\n\n"
            if number + 1 < count:
                await asyncio.sleep(every)

    return StreamingHttpResponse(
        stream(), content_type="text/event-stream", headers={"Cache-Control": "no-cache"}
    )


@csrf_exempt
def echo(request):
    """The request as the application server handed it over."""
    scope = getattr(request, "scope", None)
    return JsonResponse(
        {
            "method": request.method,
            "path": request.get_full_path(),
            "scheme": request.scheme,
            "is_secure": request.is_secure(),
            "host": request.get_host(),
            "remote_addr": request.META.get("REMOTE_ADDR", ""),
            "protocol": f"HTTP/{scope['http_version']}" if scope else request.META["SERVER_PROTOCOL"],
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "size": len(request.body),
            "sha256": hashlib.sha256(request.body).hexdigest(),
        }
    )


def slow(request):
    """Answers after `seconds` (default 2)."""
    time.sleep(float(request.GET.get("seconds", 2)))
    return HttpResponse("done\n", content_type="text/plain")


def status(request, status):
    """Answers with that status."""
    return HttpResponse("" if status in (204, 304) else f"{status}\n", status=status, content_type="text/plain")


async def _async(blocks):
    for block in blocks:
        yield block
