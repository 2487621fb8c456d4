#!/usr/bin/env python3
"""
Keep the score of a game that goes on by itself, or change a score by hand.

    TIDEWIRE_API_KEY=... python publish.py play [--players 250]
    TIDEWIRE_API_KEY=... python publish.py set ada 120
    TIDEWIRE_API_KEY=... python publish.py remove ada

Each player is a key of the map. Only the player who scored is written; who looks at the board has all the others.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import urllib.request


TURN_SECONDS = 0.25
LEAVES = 0.05  # of the turns
AT_ONCE = 100  # commands in one request
PLAYERS = 250


class Scoreboard:
    """
    A map of players.

    Args:
        url: The server's address.
        channel: The map.

    """

    def __init__(self, url: str, channel: str) -> None:
        self._url = url
        self._channel = channel

    def write(self, scores: dict[str, int]) -> None:
        """Write players with their scores."""
        commands = [
            {"map_publish": {"channel": self._channel, "key": player, "data": {"score": score}}}
            for player, score in scores.items()
        ]
        for start in range(0, len(commands), AT_ONCE):
            self._carry_out(commands[start : start + AT_ONCE])

    def remove(self, player: str) -> None:
        """Take a player off the board."""
        self._carry_out([{"map_remove": {"channel": self._channel, "key": player}}])

    def read(self) -> dict[str, int]:
        """Return all scores, as any back end may read them."""
        what = {"map_read_state": {"channel": self._channel, "limit": -1}}
        (reply,) = self._carry_out([what])
        entries = reply["map_read_state"].get("entries", [])
        return {entry["key"]: entry["data"]["score"] for entry in entries}

    def _carry_out(self, commands: list[dict[str, object]]) -> list[dict[str, dict]]:
        """Call the server API; an answer with an error ends the program."""
        request = urllib.request.Request(
            f"{self._url}/api/batch",
            json.dumps({"commands": commands}).encode(),
            {"X-API-Key": os.environ["TIDEWIRE_API_KEY"], "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            replies = json.load(response)["replies"]
        for reply in replies:
            if "error" in reply:
                sys.exit(f"refused: {reply['error']}")
        return replies


def play(board: Scoreboard, number: int) -> None:
    """Go on with the scores that are there, with as many players as were asked for."""
    scores = board.read()
    players = [f"player-{index:03}" for index in range(number)]
    new = [player for player in players if player not in scores]
    board.write(dict.fromkeys(new, 0))
    scores |= dict.fromkeys(new, 0)
    while True:
        player = random.choice(players)  # noqa: S311 -- a game
        if player in scores and random.random() < LEAVES:  # noqa: S311 -- a game
            board.remove(player)
            del scores[player]
        else:
            scores[player] = scores.get(player, 0) + random.randint(1, 50)  # noqa: S311 -- a game
            board.write({player: scores[player]})
        time.sleep(TURN_SECONDS)


def main() -> None:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(description="Keep the score.")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--channel", default="scores:game")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("play").add_argument("--players", type=int, default=PLAYERS)
    setter = verbs.add_parser("set")
    setter.add_argument("player")
    setter.add_argument("score", type=int)
    verbs.add_parser("remove").add_argument("player")
    given = parser.parse_args()
    board = Scoreboard(given.url, given.channel)
    if given.verb == "play":
        play(board, given.players)
    elif given.verb == "set":
        board.write({given.player: given.score})
    else:
        board.remove(given.player)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
