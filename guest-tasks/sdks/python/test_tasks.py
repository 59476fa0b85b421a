"""The tests of the tasks, which are ordinary methods: componentize-py -d wit -w tasks bindings bindings, once, and then
PYTHONPATH=bindings python3 -m unittest"""

import unittest

from componentize_py_types import Err
from tasks import WitWorld


class Tasks(unittest.TestCase):
    def test_words_are_counted_the_commonest_first(self):
        counts = WitWorld().count_words("a b a")
        self.assertEqual([(count.word, count.times) for count in counts], [("a", 2), ("b", 1)])

    def test_of_no_numbers_there_is_no_sum(self):
        self.assertEqual(WitWorld().total([1, 2.5]), 3.5)
        with self.assertRaises(Err):
            WitWorld().total([])

    def test_a_picture_is_inverted_behind_its_head(self):
        self.assertEqual(WitWorld().invert(b"P5 2 1 255\n\x01\xfe"), b"P5 2 1 255\n\xfe\x01")
