#!/usr/bin/env python3
"""Removes every container of the daemon at a socket, and fails when one is left."""

import http.client
import json
import socket
import sys


class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(sys.argv[1])


def call(method, path):
    connection = Connection("localhost")
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


def main():
    for _ in range(100):
        status, body = call("GET", "/v1/containers?limit=1000")
        assert status == 200, body
        items = json.loads(body)["items"]
        if not items:
            return
        for item in items:
            status, body = call("DELETE", f"/v1/containers/{item['id']}?force=true&wait=30s")
            assert status in (204, 404), (status, body)
    sys.exit("containers are left")


main()
