"""Texts written for the teacher-forced comparison of the demo mixture with its dense original; in the public domain."""

PROSE = """The lighthouse keeper had counted every ship that passed since the spring, and on the last day of October the number in his book
stood at four hundred and twelve. He did not know why he kept the count. Nobody had asked him to, and the harbour office sent its own
figures to the capital each month. Still, when the lamp was clean and the oil was measured, he liked to sit on the iron stairs with the
book on his knees and write down the hour, the flag, and whatever else the evening showed him: a dog on the deck, a woman in a yellow
coat, a song he could not quite hear. That night the wind came round to the north and the rain began. Around nine o'clock he saw a light
that did not belong to any ship. It was small and low and moved like a lantern carried by somebody walking, but there was nothing out
there to walk on. He wiped the glass and looked again. The light stopped, as if it had noticed him, and then slowly, twice, it went out
and came back. He had learned the signals as a boy, from his father, who had learned them from his. Two long flashes meant a question. He
put the book down, climbed to the lamp room, and for the first time in thirty years he answered.

Water that falls on the hills does not reach the sea at once. Some of it runs over the ground and into streams within hours; some sinks
into the soil, where roots take it up and leaves give it back to the air; and some goes deeper, into sand and gravel and cracked rock,
where it may stay for a thousand years. A well is only a hole that reaches down to this hidden store. If people take more from it than
the rain puts back, the level falls, the well has to be made deeper, and the springs that fed the river in summer dry up. This is why a
dry river is often a sign of something that happened far away and long ago. Measuring the level of a few wells each month costs almost
nothing, and it tells a town more about its future than most reports do.
"""

MIXED = """# Shopping list
1. 2 kg of potatoes, 500 g of butter, 12 eggs
2. Milk (3 bottles), oat flakes, honey
3. Batteries: 4 x AA, 2 x AAA

def mean_and_variance(values):
    \"\"\"Both in one pass (Welford).\"\"\"
    mean, total, count = 0.0, 0.0, 0
    for value in values:
        count += 1
        delta = value - mean
        mean += delta / count
        total += delta * (value - mean)
    if count < 2:
        raise ValueError("need at least two values")
    return mean, total / (count - 1)

{"name": "station-17", "position": [52.5163, 13.3777], "online": true, "readings": [{"t": 1700000000, "temp": 21.5}, {"t": 1700000600, "temp": 21.7}]}

Dear Ms. Alvarez,
thank you for your letter of 3 March. We are sorry that the chair arrived with a broken leg. A new one was sent today and should reach you
by Friday; please keep the old one until our driver calls. You do not have to pay for anything. If you would rather have your money back,
write to us before the end of the month and we will return the full price of $149.00.
Kind regards,
Tom Becker

SELECT city, COUNT(*) AS n FROM customers WHERE age >= 18 GROUP BY city HAVING COUNT(*) > 10 ORDER BY n DESC;

Le petit train part de la gare à huit heures et demie. Die Bäckerei an der Ecke öffnet schon um sechs. La biblioteca está cerrada los lunes.
今日はとても寒いですね。 The word for "thank you" in Russian is спасибо. The temperature fell to -7 °C, and 3/4 of the pipes froze.

int64_t gcd(int64_t a, int64_t b) {
  while (b != 0) {
    int64_t t = a % b;
    a = b;
    b = t;
  }
  return a < 0 ? -a : a;
}
"""

# The dense model continues these at temperature 1 to fill the rest of the set.
OPENINGS = (
    "The history of the steam engine begins",
    "Once upon a time, in a village by the river,",
    "To install the package, first open a terminal and",
    "Chapter 3: How Plants Make Food\n\n",
    "Dear diary, today",
    "import math\n\nclass Vector:\n",
    "The three most common mistakes when cooking pasta are",
)
