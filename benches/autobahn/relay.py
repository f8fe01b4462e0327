"""TLS for a client that has no SNI: `python relay.py PORT TO CA NAME` passes every byte on, and changes none."""

import asyncio
import ssl
import sys


async def main(port, to, ca, name):
    context = ssl.create_default_context(cafile=ca)

    async def relay(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", to, ssl=context, server_hostname=name)
        except OSError:
            writer.close()
            return
        await asyncio.wait(
            [asyncio.create_task(carry(reader, far_writer)), asyncio.create_task(carry(far_reader, writer))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        writer.close()
        far_writer.close()

    async with await asyncio.start_server(relay, "127.0.0.1", port) as server:
        await server.serve_forever()


async def carry(reader, writer):
    try:
        while piece := await reader.read(1 << 18):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]))
