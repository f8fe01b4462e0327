"""Asks for the page until a file appears, over a connection that is kept and over new ones; a line an answer. Ends with 1
where one was not 200."""

import os
import ssl
import sys
import threading

import httpx

PORT, CA, STOP = sys.argv[1:4]
LOST = []


def main():
    threads = [threading.Thread(target=ask, args=(kept,)) for kept in (True, True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(bool(LOST))


def ask(kept):
    client = connect()
    while not os.path.exists(STOP):
        try:
            status = str(client.get("/").status_code)
        except httpx.HTTPError as error:
            status = repr(error)
        if status != "200":
            LOST.append(status)
        print(status, flush=True)
        if not kept:
            client.close()
            client = connect()


def connect():
    context = ssl.create_default_context(cafile=CA)
    # The name leads to loopback, whatever this machine's resolver makes of it.
    return httpx.Client(
        verify=context,
        base_url=f"https://127.0.0.1:{PORT}",
        headers={"Host": f"app.localhost:{PORT}"},
        timeout=60,
        trust_env=False,
        transport=Named(verify=context),
    )


class Named(httpx.HTTPTransport):
    """Says the site's name in the handshake."""

    def handle_request(self, request):
        request.extensions["sni_hostname"] = "app.localhost"
        return super().handle_request(request)


if __name__ == "__main__":
    main()
