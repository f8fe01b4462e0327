"""Asks for the page until a file appears, over a connection that is kept and over new ones; a line an answer. With a name,
visits are posted under it too. Ends with 1 where an answer was not 200.

    container_load.py https://127.0.0.1:PORT CA STOP [NAME]     CA: a file, or - for http
"""

import os
import ssl
import sys
import threading

import httpx

URL, CA, STOP, *NAME = sys.argv[1:]
LOST = []


def main():
    askers = [("GET", "/", kept) for kept in (True, True, False)]
    askers += [("POST", f"/visits?by={NAME[0]}", kept) for kept in (True, True, False)] if NAME else []
    threads = [threading.Thread(target=ask, args=asker) for asker in askers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(bool(LOST))


def ask(method, path, kept):
    client = connect()
    while not os.path.exists(STOP):
        try:
            answer = client.request(method, path)
            status = str(answer.status_code)
        except httpx.HTTPError as error:
            status = repr(error)
        if status != "200":
            LOST.append(status)
        # In one write: the threads' lines do not mix.
        os.write(1, f"{method} {status}\n".encode())
        if not kept:
            client.close()
            client = connect()


def connect():
    context = ssl.create_default_context(cafile=None if CA == "-" else CA)
    # The name leads to loopback, whatever this machine's resolver makes of it.
    return httpx.Client(
        base_url=URL,
        headers={"Host": f"app.localhost:{httpx.URL(URL).port}"},
        timeout=90,
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
