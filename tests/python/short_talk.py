"""A short talk over the stock `websockets` client: token in the query and in the first frame,
two messages, both seen by both in order, sync, refusals.

    API=http://.. GATEWAY_A=http://.. GATEWAY_B=http://.. python short_talk.py
"""

import asyncio
import json
import os
import urllib.request
import uuid

import websockets
from websockets.asyncio.client import connect

API, GATEWAY_A, GATEWAY_B = (os.environ[name] for name in ("API", "GATEWAY_A", "GATEWAY_B"))
PATIENCE_S = 20


def post(path, body, token=None):
    headers = {"content-type": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    request = urllib.request.Request(API + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.load(answer)


def person(name):
    email = f"{name}-{uuid.uuid4()}@example.org"
    form = {"email": email, "password": "correct horse battery", "firstName": name, "lastName": "Test"}
    body = post("/api/v1/auth/register", form)
    return body["user"]["id"], body["accessToken"]


class Client:
    """Keeps what came until somebody asks for it."""

    def __init__(self, socket):
        self.socket, self.kept, self.next_id = socket, [], 1

    async def take(self, fits):
        for frame in self.kept:
            if fits(frame):
                self.kept.remove(frame)
                return frame
        while True:
            frame = json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE_S))
            if fits(frame):
                return frame
            self.kept.append(frame)

    async def event(self, name):
        return (await self.take(lambda frame: frame.get("event") == name))["data"]

    async def emit(self, event, data):
        frame_id = f"frame-{self.next_id}"
        self.next_id += 1
        await self.socket.send(json.dumps({"id": frame_id, "event": event, "data": data}))
        return (await self.take(lambda frame: frame.get("id") == frame_id))["ack"]


async def talk():
    (alice, alice_token), (bob, bob_token) = person("alice"), person("bob")
    room = post("/api/v1/conversations", {"type": "direct", "memberIds": [bob]}, alice_token)["id"]
    same = post("/api/v1/conversations", {"type": "direct", "memberIds": [alice]}, bob_token)["id"]
    assert room == same, "a direct conversation exists once"

    first_url = GATEWAY_A.replace("http", "ws") + f"/ws?token={alice_token}"
    second_url = GATEWAY_B.replace("http", "ws") + "/chat"
    async with connect(first_url) as first, connect(second_url, subprotocols=["chatchit.v1.json"]) as second:
        one, two = Client(first), Client(second)
        await second.send(json.dumps({"event": "auth", "data": {"token": bob_token, "deviceId": "python"}}))
        assert (await one.event("session.ready"))["userId"] == alice
        ready = await two.event("session.ready")
        assert (ready["userId"], ready["deviceId"]) == (bob, "python"), ready

        for number, client in enumerate((one, two), 1):
            ack = await client.emit("message.send", {"roomId": room, "content": f"hello {number}", "clientMsgId": str(number)})
            assert ack["status"] == "QUEUED" and ack["clientMsgId"] == str(number), ack
        for client in (one, two):
            seen = [await client.event("message.delivered") for _ in range(2)]
            assert [message["seq"] for message in seen] == [1, 2], seen
            assert [message["content"] for message in seen] == ["hello 1", "hello 2"], seen

        synced = (await two.emit("sync", {"rooms": [{"roomId": room, "afterSeq": 1}]}))["rooms"][0]
        assert [item["seq"] for item in synced["items"]] == [2] and synced["complete"] is True, synced
        refused = await one.emit("no.such.event", {})
        assert refused["code"] == "UNKNOWN_EVENT", refused

    async with connect(second_url) as stranger:
        await stranger.send(json.dumps({"event": "auth", "data": {"token": "nonsense"}}))
        try:
            while True:
                await asyncio.wait_for(stranger.recv(), PATIENCE_S)
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd is not None and closed.rcvd.code == 4401, closed


asyncio.run(talk())
print("ok")
