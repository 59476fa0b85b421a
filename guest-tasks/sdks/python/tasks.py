"""Three tasks: the words of a text, the sum of numbers, and a picture turned into its negative."""

import re
from collections import Counter

import wit_world
from componentize_py_types import Err


class WitWorld(wit_world.WitWorld):
    def count_words(self, text):
        # The commonest first.
        counts = sorted(Counter(text.split()).items(), key=lambda pair: (-pair[1], pair[0]))
        return [wit_world.Count(word, times) for word, times in counts]

    def total(self, values):
        # What is raised as `Err` is the error of a result.
        if not values:
            raise Err("total of no numbers")
        return sum(values)

    def invert(self, picture):
        # The head is `P5`, width, height and maximum, and one space behind them.
        head = re.match(rb"P5\s+\d+\s+\d+\s+\d+\s", picture)
        if not head:
            raise Err("not a PGM picture")
        return picture[: head.end()] + bytes(255 - grey for grey in picture[head.end() :])
