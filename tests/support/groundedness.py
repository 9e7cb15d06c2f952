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

# Written after the rules were settled, over other captions, and not used to change them.
BOAT = "Several small fishing boats are tied to a pier at sunset"
CAKE = "A boy with glasses blows out seven candles on a chocolate cake"
HORSE = "Two police officers on white horses ride through a crowded square"
DESK = "A cluttered desk with two monitors, a keyboard and a half-empty mug of tea"
ELEPHANT = "A mother elephant and her calf drink from a muddy waterhole"
SKI = "A skier in a green jacket jumps over a ramp in front of spectators"
CLOCK = "A tall clock tower with a golden dome stands beside the cathedral in Prague"
TOILET = "A small bathroom without a window, with a white sink and a broken mirror"
PHONE = "A young woman talks on her phone while she waits at a bus stop"
FRUIT = "A wooden bowl filled with green apples and three ripe bananas"

HELD_OUT: tuple[tuple[str, str, bool], ...] = (
    (BOAT, "There are fishing boats at a pier.", True),
    (BOAT, "The boats are tied up at sunset.", True),
    (BOAT, "Some small boats are moored to a pier.", True),
    (CAKE, "A boy is blowing out candles.", True),
    (CAKE, "There are 7 candles on the cake.", True),
    (CAKE, "The child wears glasses.", True),
    (HORSE, "Two police officers are riding horses.", True),
    (HORSE, "The horses are white.", True),
    (HORSE, "The square is full of people.", True),
    (DESK, "There are two monitors on the desk.", True),
    (DESK, "The desk is cluttered.", True),
    (DESK, "A mug of tea stands on the desk.", True),
    (ELEPHANT, "Two elephants are drinking water.", True),
    (ELEPHANT, "An elephant and its calf drink from a waterhole.", True),
    (SKI, "A skier jumps over a ramp.", True),
    (SKI, "The skier's jacket is green.", True),
    (SKI, "People are watching a skier jump.", True),
    (CLOCK, "The clock tower is in Prague.", True),
    (CLOCK, "The tower has a golden dome.", True),
    (TOILET, "The bathroom has no window.", True),
    (TOILET, "The mirror is broken.", True),
    (PHONE, "A woman is waiting for the bus.", True),
    (PHONE, "A young woman is using her phone at a bus stop.", True),
    (FRUIT, "The bowl contains apples and bananas.", True),
    (FRUIT, "There are three bananas in a wooden bowl.", True),
    (BOAT, "A large cruise ship is tied to a pier.", False),
    (BOAT, "The boats are sailing at sunrise.", False),
    (BOAT, "Fishermen are unloading their catch.", False),
    (CAKE, "A girl blows out the candles.", False),
    (CAKE, "The boy is eight years old.", False),
    (CAKE, "The cake has strawberries on it.", False),
    (HORSE, "Two police officers ride black horses.", False),
    (HORSE, "Three officers ride through the square.", False),
    (HORSE, "The protesters are throwing stones.", False),
    (DESK, "There is a laptop on the desk.", False),
    (DESK, "The mug holds coffee.", False),
    (DESK, "The desk belongs to Anna.", False),
    (ELEPHANT, "Two zebras drink from a waterhole.", False),
    (ELEPHANT, "The elephants are bathing in a river.", False),
    (ELEPHANT, "Elephants live for about 60 years.", False),
    (SKI, "A snowboarder jumps over a ramp.", False),
    (SKI, "The skier wears a red jacket.", False),
    (SKI, "The skier wins the gold medal.", False),
    (CLOCK, "The clock tower is in Vienna.", False),
    (CLOCK, "The tower was built in 1410.", False),
    (CLOCK, "The clock shows noon.", False),
    (TOILET, "The bathroom has a window.", False),
    (TOILET, "There is a bathtub in the bathroom.", False),
    (PHONE, "A man talks on his phone.", False),
    (PHONE, "The woman is sending a message.", False),
    (PHONE, "A woman is not talking on her phone.", False),
    (FRUIT, "The bowl is filled with red apples.", False),
    (FRUIT, "There are four bananas.", False),
    (FRUIT, "A glass bowl holds oranges.", False),
)
