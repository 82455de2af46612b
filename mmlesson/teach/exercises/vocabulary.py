"""The words that the exercises understand beside the world's own names, aliases and wordings.

Lists, and nothing else: words.py says what a sentence means.
"""

COLOURS = {  # other words for the world's backgrounds
    "grey": "silver ash slate greyish grayish",
    "red": "scarlet crimson ruby vermilion reddish",
    "green": "emerald lime olive greenish",
    "turquoise": "aqua aquamarine",
    "blue": "navy azure indigo cobalt sapphire ultramarine sky-blue bluish",
    "purple": "lilac lavender mauve amethyst purplish",
    "pink": "rose-coloured magenta fuchsia pinkish",
    "orange": "amber",
    "yellow": "golden gold yellowish",
    "black": "jet-black ebony",
    "white": "snow-white ivory",
    "brown": "chestnut-coloured tan brownish",
}
THINGS = {  # other words for the world's things, with commas between them: some have two parts
    "airplane": "airliner, jet",
    "alien": "extraterrestrial, martian",
    "automobile": "auto, sedan",
    "axe": "ax, hatchet",
    "baby": "infant, newborn",
    "bathtub": "tub",
    "bear": "grizzly",
    "bicycle": "pushbike",
    "bird": "birdie",
    "boy": "lad",
    "bread": "loaf",
    "broom": "broomstick",
    "cat": "kitten, kitty, tabby, pussycat, tomcat",
    "chair": "armchair",
    "cherries": "cherry",
    "child": "kid, toddler",
    "church": "chapel, cathedral",
    "coat": "jacket, overcoat",
    "cookie": "biscuit",
    "crocodile": "alligator",
    "crown": "tiara, diadem",
    "deer": "stag, doe",
    "dog": "puppy, pup, hound, doggy",
    "dolphin": "porpoise",
    "door": "doorway",
    "dress": "gown, frock",
    "duck": "duckling",
    "elephant": "jumbo",
    "ewe": "lamb",
    "flashlight": "torch",
    "fox": "vixen",
    "frog": "toad",
    "ghost": "phantom, spook, spectre",
    "girl": "lass",
    "glasses": "eyeglasses, spectacles",
    "gloves": "glove, mittens",
    "goat": "billy goat",
    "grapes": "grape",
    "hamburger": "cheeseburger",
    "hammer": "mallet",
    "helicopter": "chopper",
    "horse": "pony, stallion, mare, foal",
    "house": "home, cottage, hut, cabin",
    "jeans": "trousers",
    "lion": "lioness",
    "mage": "sorcerer, magician",
    "man": "gentleman, guy",
    "microphone": "mic",
    "mobile phone": "cellphone, cell phone",
    "monkey": "chimp, chimpanzee",
    "motorcycle": "motor bike",
    "owl": "owlet",
    "ox": "bull",
    "pancakes": "pancake",
    "peanuts": "peanut",
    "person": "human, human being",
    "pig": "piglet, hog",
    "pizza": "pizzas, pizzeria, margherita, calzone",
    "police officer": "policeman, policewoman",
    "potato": "spud",
    "rabbit": "bunny, hare",
    "robot": "android",
    "rocket": "spaceship, spacecraft, starship",
    "rooster": "cockerel",
    "scissors": "shears",
    "shark": "great white",
    "ship": "ocean liner, steamship",
    "snake": "serpent, viper, cobra",
    "socks": "sock",
    "spider": "tarantula",
    "student": "pupil",
    "television": "telly, tv set",
    "tiger": "tigress",
    "toilet": "loo, lavatory",
    "turtle": "tortoise",
    "umbrella": "parasol",
    "violin": "fiddle",
    "wolf": "werewolf",
    "woman": "lady, gentlewoman",
    "wrench": "spanner",
}
TRAITS = {  # what a thing can be like → other words for it
    "big": "large huge giant gigantic enormous bigger",
    "small": "little tiny wee miniature smaller",
    "happy": "glad cheerful joyful",
    "sad": "unhappy gloomy",
    "angry": "furious",
    "fast": "quick swift",
    "dark": "darker",
    "light": "pale lighter bright",
    "pretty": "beautiful lovely cute",
    "striped": "stripy stripey",
    "spotted": "spotty",
    "fat": "plump",
    "thin": "slim skinny",
    **dict.fromkeys(
        (
            "slow old young new tall short long wide narrow round square flat hungry thirsty tired lazy wet dry "
            "hot cold warm clean dirty dead living alive fluffy furry hairy bald ugly nice friendly good bad "
            "strong weak brave shy loud quiet heavy broken empty full wooden plastic metal rusty shiny sleeping "
            "smiling laughing dancing flying jumping walking swimming singing wild tame real wounded blind deaf "
            "rich poor"
        ).split(),
        "",
    ),
}
NUMBERS = {word: str(n) for n, word in enumerate("two three four five six seven eight nine ten".split(), 2)}
DEEDS = (  # what one thing does to another: who does it matters
    "admire annoy answer ask attack avoid beat bite blame block bother break build bury buy call carry catch "
    "chase choose clean climb comfort command control cook cover crush cure cut deceive defeat destroy dislike "
    "dodge drag draw drink drive drop eat educate escape examine fear feed fight find flatter follow fool forgive "
    "frighten greet guard guide hate hear heal help hide hit hold hug hunt hurt imitate injure inspect interview "
    "invent invite jump kick kill kiss know lead lick lift like love lose miss mock nurse obey observe offend "
    "order own paint pay photograph pick please poke praise protect pull punch punish push race rescue respect "
    "ride rob save scare scold see sell serve shoot smell sniff spot squash steal sting stop study support "
    "surprise swallow taste teach tease thank throw tickle trust understand visit want warn wash watch wear "
    "welcome"
).split()
PAST = (  # where it does not end in -ed: "verb past participle", the third only where it differs
    "beat beat beaten, bite bit bitten, break broke broken, build built, buy bought, catch caught, choose chose "
    "chosen, cut cut, draw drew drawn, drink drank drunk, drive drove driven, eat ate eaten, feed fed, fight "
    "fought, find found, forgive forgave forgiven, hear heard, hide hid hidden, hit hit, hold held, hurt hurt, "
    "know knew known, lead led, lose lost, pay paid, ride rode ridden, see saw seen, sell sold, shoot shot, steal "
    "stole stolen, sting stung, teach taught, throw threw thrown, understand understood, wear wore worn"
)
MUTUAL = (  # what two things do to one another: exchanging them changes nothing
    "meet meets meeting met touch touches touching touched marry marries marrying married resemble resembles "
    "equals neighbours neighbors"
).split()
