"""The WebSocket."""

from channels.generic.websocket import AsyncWebsocketConsumer


class Echo(AsyncWebsocketConsumer):
    """Says back what it hears; `who` is answered with what Channels knows of the client."""

    async def receive(self, text_data=None, bytes_data=None):
        if text_data == "who":
            headers = dict(self.scope["headers"])
            text_data = f"{self.scope['scheme']} {headers.get(b'x-real-ip', b'-').decode()}"
        await self.send(text_data=text_data, bytes_data=bytes_data)
