"""Sentences over captions, written by hand: which a person says have support in the caption, and which have not.

Each triple is caption, sentence, and whether the caption supports it. Kinds of support: the same words,
other words, part of the caption, numbers in digits; kinds of its lack: another object, colour, number,
place, name or action, an addition, a negation, something only probable.
"""

from __future__ import annotations

DOG = "A brown dog runs along a sandy beach with a red ball in its mouth"
BUS = "A red double-decker bus is parked in front of an old brick building"
KITCHEN = "Two men wearing aprons prepare food in a large commercial kitchen"
CAT = "A black and white cat is sleeping on a wooden desk next to a laptop"
GIRL = "A little girl in a yellow raincoat is holding a blue umbrella in the rain"
TENNIS = "A tennis player swings her racket at a ball on a clay court"
PIZZA = "Three people share a large pizza with mushrooms at a restaurant table"
STREET = "An empty street at night with no people and a traffic light showing green"
TRAIN = "A steam train crosses a stone bridge over the river near Glenfinnan in 1998"
SURF = "A man rides a wave on a surfboard while a child watches from the shore"

PAIRS: tuple[tuple[str, str, bool], ...] = (
    (DOG, "A brown dog runs along a beach.", True),
    (DOG, "The dog is running on a sandy beach.", True),
    (DOG, "The dog has a red ball in its mouth.", True),
    (DOG, "A dog is carrying a ball.", True),
    (DOG, "A puppy runs on the beach.", True),
    (DOG, "The ball is red.", True),
    (BUS, "A double-decker bus is parked in front of a building.", True),
    (BUS, "The bus is red.", True),
    (BUS, "There is one bus, and it is parked.", True),
    (BUS, "The building behind the red bus is made of brick.", True),
    (KITCHEN, "Two men are preparing food in a kitchen.", True),
    (KITCHEN, "There are 2 men in aprons.", True),
    (KITCHEN, "The men are cooking in a commercial kitchen.", True),
    (KITCHEN, "The kitchen is large.", True),
    (CAT, "The cat is sleeping on a desk.", True),
    (CAT, "A cat sleeps next to a laptop.", True),
    (CAT, "The cat is asleep beside a laptop computer.", True),
    (CAT, "The desk is made of wood.", True),
    (GIRL, "A girl holds a blue umbrella.", True),
    (GIRL, "The girl is wearing a yellow raincoat.", True),
    (GIRL, "It is raining, and the child has an umbrella.", True),
    (GIRL, "Her umbrella is blue.", True),
    (TENNIS, "A player swings a racket.", True),
    (TENNIS, "She is playing tennis on a clay court.", True),
    (TENNIS, "The court is clay.", True),
    (PIZZA, "Three people are eating pizza at a restaurant.", True),
    (PIZZA, "The pizza has mushrooms.", True),
    (PIZZA, "3 people share a pizza.", True),
    (STREET, "The street is empty.", True),
    (STREET, "There are no people in the street.", True),
    (STREET, "The traffic light is green.", True),
    (TRAIN, "A steam train crosses a bridge near Glenfinnan.", True),
    (TRAIN, "The photo was taken in 1998.", True),
    (TRAIN, "The bridge is made of stone.", True),
    (SURF, "A man is surfing a wave.", True),
    (SURF, "A child is watching from the shore.", True),
    (DOG, "A brown cat runs along a beach.", False),
    (DOG, "A black dog runs along the beach.", False),
    (DOG, "Two dogs run along the beach.", False),
    (DOG, "The dog is sleeping on the beach.", False),
    (DOG, "A brown dog runs along the beach with a red frisbee and a boy.", False),
    (DOG, "The dog is called Rex.", False),
    (DOG, "The dog is not running.", False),
    (BUS, "A blue bus is parked in front of a building.", False),
    (BUS, "The bus is parked in London.", False),
    (BUS, "Several passengers are boarding the red bus.", False),
    (BUS, "The bus was built in 1962.", False),
    (KITCHEN, "Three men are preparing food in a kitchen.", False),
    (KITCHEN, "Two women are preparing food in a kitchen.", False),
    (KITCHEN, "The men are washing dishes in the kitchen.", False),
    (KITCHEN, "The chefs Marco and Luigi work in a commercial kitchen.", False),
    (CAT, "The cat is eating on the desk.", False),
    (CAT, "A dog is sleeping on a wooden desk.", False),
    (CAT, "The cat is orange.", False),
    (CAT, "There is a cup of coffee on the desk.", False),
    (GIRL, "A boy in a yellow raincoat is holding an umbrella.", False),
    (GIRL, "The girl has a red umbrella.", False),
    (GIRL, "The girl is five years old.", False),
    (GIRL, "The girl is waiting for the school bus.", False),
    (TENNIS, "A player swings a racket on a grass court.", False),
    (TENNIS, "Serena Williams swings her racket on a clay court.", False),
    (TENNIS, "The player won the match.", False),
    (PIZZA, "Four people share a pizza.", False),
    (PIZZA, "The pizza has olives and ham.", False),
    (PIZZA, "The people are drinking wine.", False),
    (STREET, "There are people in the street.", False),
    (STREET, "The traffic light is red.", False),
    (STREET, "The street is in Paris.", False),
    (TRAIN, "A steam train crosses a bridge in 1989.", False),
    (TRAIN, "A diesel train crosses a stone bridge.", False),
    (TRAIN, "The train carries tourists to Edinburgh.", False),
    (SURF, "A woman rides a wave on a surfboard.", False),
    (SURF, "The man falls off his surfboard.", False),
    (SURF, "Sharks are swimming near the man.", False),
    (SURF, "The capital of France is Paris.", False),
    (CAT, "Cats sleep up to 16 hours a day.", False),
)
