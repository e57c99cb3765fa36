"""The prompts that the demo adapters are trained and judged on.

TRAINING is generated from templates; HELD_OUT is written by hand and shares no sentence with it (`training_prompts` checks).
Both are in the public domain as far as law allows.
"""

import random

_TEMPLATES = {
    "What is {}?": "gravity|photosynthesis|a volcano|democracy|a prime number|jazz music|inflation|a black hole|DNA|an earthquake|"
    "a poem|machine learning|a vitamin|the Internet|a hurricane|friendship|a glacier|electricity|a robot|the ozone layer|"
    "an atom|philosophy|a desert|a metaphor|the immune system|a database|recycling|a symphony|evolution|a budget|a compiler|"
    "a telescope|yeast|a constellation|solar power|a fossil|a passport|a bicycle|calculus|an algorithm",
    "What is the capital of {}?": "Italy|Germany|Spain|Egypt|Canada|Norway|Greece|Portugal|India|China|Russia|Mexico|Peru|Kenya|Sweden|"
    "Poland|Austria|Turkey|Cuba|Ireland|Finland|Thailand|Chile|Argentina",
    "Who was {}?": "Isaac Newton|Marie Curie|Leonardo da Vinci|William Shakespeare|Cleopatra|Mozart|Charles Darwin|Galileo|"
    "Abraham Lincoln|Aristotle|Vincent van Gogh|Ada Lovelace|Julius Caesar|Nikola Tesla|Jane Austen|Homer|Napoleon|Beethoven",
    "Give me a tip for {}.": "sleeping better|saving money|cooking rice|learning to swim|a job interview|staying healthy|taking photos|"
    "growing tomatoes|writing an essay|training a dog|running faster|packing a suitcase|learning guitar|reading more books|"
    "making friends|cleaning the kitchen|public speaking|playing chess|drawing faces|keeping a diary|waking up early",
    "How do I {}?": "boil an egg|change a tire|make a cup of tea|plant a tree|write a letter|clean a window|fold a shirt|tie a tie|"
    "build a sandcastle|learn a language|bake bread|fix a leaking tap|make a paper plane|choose a book|remember names|"
    "wash a car|paint a wall|sharpen a knife|grow basil|make soup|stay calm|peel an orange|cut an onion",
    "Why {}?": "is the grass green|do birds sing|do we dream|is ice slippery|do leaves fall in autumn|does the moon have phases|"
    "do cats purr|is the ocean salty|do we need water|do people laugh|does bread rise|is exercise good for us|do stars shine|"
    "do we have seasons|is honey sweet|do dogs bark|does metal rust|is the sunset red|do bees make honey|do we yawn",
    "Tell me about {}.": "the Amazon river|tigers|the planet Mars|chocolate|the city of London|whales|the Great Wall of China|"
    "football|coffee|the Roman Empire|penguins|the piano|Japan|dinosaurs|the desert|rainbows|the heart|spiders|trains|"
    "the sun|castles|the guitar|snow|elephants|the North Pole|cheese|butterflies|horses|bridges",
    "Write a sentence about {}.": "a rainy day|the sea|my garden|an old house|a happy child|winter|the market|a long journey|the night|"
    "a lost key|a birthday|the forest|a busy street|an empty room|a brave knight|my grandmother|a train|the first snow|music",
    "Explain {} in one sentence.": "how planes fly|the water cycle|supply and demand|what a computer does|how plants grow|"
    "why we sleep|how a clock works|how magnets work|what a cell is|how rain forms|what a law is|how glass is made|"
    "how the heart works|what a map is|how batteries work|what art is|how vaccines work|what a story is",
    "Name one {}.": "famous painter|big city|musical instrument|healthy snack|wild animal|river in Europe|good hobby|kind of tree|"
    "winter sport|kind of bread|planet|ocean|farm animal|yellow fruit|useful tool|kind of flower|kind of fish|gemstone",
    "Is {}?": "the earth round|milk good for you|chess hard to learn|coffee a drink|the sun a star|a whale a fish|"
    "gold a metal|swimming good exercise|a tomato a fruit|ice colder than water|Paris in France|a spider an insect",
    "What should I {}?": "eat for breakfast|wear in winter|read next|cook tonight|do on a rainy day|bring to a picnic|drink after sport|"
    "learn first in math|see in Rome|say to a sad friend|pack for the beach|give my mother|plant in spring",
}
_SINGLE = (
    "Hello!|Hi there.|Good morning!|How are you today?|What is your name?|Thank you very much.|I feel sad today.|I am bored.|"
    "Tell me something nice.|Can you help me with my homework?|What can you do?|I lost my keys.|I just got a new puppy!|"
    "It is raining again.|My computer is slow.|I am going on a trip tomorrow.|I cannot sleep.|What is 2 + 3?|What is 7 times 6?|"
    "What day comes after Monday?|How many legs does a spider have?|How many days are in a year?|How many hours are in a day?|"
    "What color is a banana?|Which animal says moo?|Good night!|See you later.|I passed my exam!|I am hungry.|I need some advice.|My cat is asleep.|"
    "I forgot my lunch today.|My sister got married.|I found a coin on the street.|The bus was late again.|I made a cake.|It is very cold outside.|"
    "My brother has a new job.|I broke a glass.|We won the match!|I bought new shoes yesterday.|My uncle comes to visit tomorrow.|"
    "I miss my friend.|The party was fun.|I have a headache.|My neighbor is very loud.|I love music.|I missed the train this morning."
)

HELD_OUT = (
    "What is the capital of France?",
    "Why is the sky blue?",
    "How do I make pancakes?",
    "Who was Albert Einstein?",
    "Give me a tip for learning the piano.",
    "What is a neural network?",
    "Tell me about the moon.",
    "How many days are in a week?",
    "What should I do this weekend?",
    "Explain how a bicycle stays upright.",
    "Write a sentence about a dragon.",
    "What color is the ocean?",
    "Name one big animal.",
    "I forgot my umbrella today.",
    "Is fire hot?",
    "Where do polar bears live?",
    "What do bees eat?",
    "Hi, who are you?",
    "What is the largest planet?",
    "Can you recommend a good book?",
    "Why do we brush our teeth?",
    "How far away is the sun?",
    "What happens when water boils?",
    "My friend has a birthday tomorrow.",
)


def training_prompts():
    """About 300 prompts, shuffled once with a fixed seed."""
    prompts = [template.format(word) for template, words in _TEMPLATES.items() for word in words.split("|")]
    prompts += _SINGLE.split("|")
    overlap = set(prompts) & set(HELD_OUT)
    if overlap or len(set(prompts)) != len(prompts):
        raise ValueError(f"training prompts repeat, or repeat held-out ones: {sorted(overlap)}")
    random.Random(1).shuffle(prompts)
    return prompts
