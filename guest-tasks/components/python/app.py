import wit_world
from wit_world import Count
from componentize_py_types import Err
import re
from collections import Counter

class WitWorld(wit_world.WitWorld):
    def count(self, text):
        c = Counter(re.findall(r"\w+", text.lower()))
        return [Count(w, n) for w, n in sorted(c.items(), key=lambda p: (-p[1], p[0]))]
    def mean(self, xs):
        if not xs:
            raise Err("mean of no numbers")
        return sum(xs) / len(xs)
    def invert(self, picture):
        return bytes(255 - b for b in picture)
