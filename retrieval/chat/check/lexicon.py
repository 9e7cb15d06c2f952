"""Words that lie near each other in any embedding and yet exclude each other: red and blue, boy and girl, cat and dog.

A sentence embedding puts "a black dog" next to "a brown dog", which is right for search and wrong for a
check of facts. Each kind lists its members, a member its names; a member is supported by its own names
only, the kind's own names by any member.
"""

# Lists are easier to read in long lines.
# ruff: noqa: E501

from __future__ import annotations

from functools import lru_cache

from retrieval.chat.check.claims import stem

# kind: (names of the kind, members; the names of one member stand together, joined by /)
_KINDS: dict[str, tuple[str, str]] = {
    "colour": (
        "colour coloured",
        "red/scarlet/crimson orange yellow/golden/gold green blue/navy/turquoise purple/violet/lilac pink/magenta "
        "brown/tan/beige black white grey/silver blond/blonde",
    ),
    "person": (
        "person people human adult somebody someone individual crowd pedestrian",
        "man/gentleman/guy/male/father/dad/husband/businessman/fisherman/grandfather "
        "woman/lady/female/mother/mom/wife/grandmother/businesswoman boy/son girl/daughter baby/infant/toddler",
    ),
    "animal": (
        "animal creature pet wildlife",
        "dog/puppy/hound/pup/terrier/labrador/retriever/poodle/bulldog/corgi cat/kitten/kitty/tabby "
        "horse/pony/foal/mare/stallion cow/cattle/calf/bull/ox sheep/lamb goat pig/piglet/hog elephant giraffe zebra "
        "lion tiger bear/cub monkey/ape/chimpanzee rabbit/bunny/hare mouse/rat squirrel deer/elk/moose "
        "bird/pigeon/gull/seagull/parrot/sparrow/crow/raven/eagle/owl duck/goose/swan chicken/hen/rooster fish/shark "
        "snake lizard turtle/tortoise frog/toad bee/wasp butterfly/moth spider whale/dolphin seal penguin fox wolf",
    ),
    "vehicle": (
        "vehicle transport transportation",
        "car/automobile/sedan/taxi/cab bus/coach truck/lorry/van/pickup train/locomotive/tram/subway "
        "bicycle/bike/cycle motorcycle/motorbike/scooter/moped plane/airplane/aeroplane/jet/aircraft/airliner "
        "helicopter boat/ship/ferry/yacht/canoe/kayak/sailboat submarine rocket tractor carriage/wagon sled/sleigh",
    ),
    "sport": (
        "sport game match",
        "tennis baseball/softball basketball football/soccer hockey golf volleyball rugby cricket badminton "
        "skiing/ski/skier snowboarding/snowboard/snowboarder skateboarding/skateboard/skateboarder "
        "surfing/surf/surfer/surfboard swimming/swim/swimmer frisbee boxing/boxer cycling/cyclist running/runner/run",
    ),
    "material": (
        "material",
        "wood/wooden/timber metal/steel/iron/metallic/aluminium/aluminum stone/rock/granite/marble brick glass plastic "
        "paper/cardboard leather clay grass/lawn/grassy sand/sandy concrete/asphalt/pavement snow/snowy ice/icy",
    ),
    "room": (
        "room",
        "kitchen bathroom/restroom/toilet bedroom office classroom garage garden/yard hallway/corridor "
        "restaurant/cafe/diner/cafeteria church museum library stadium airport hotel hospital zoo farm",
    ),
    "landscape": (
        "landscape outdoors nature",
        "beach/shore/coast/seaside forest/wood/woods/jungle mountain/hill desert field/meadow/pasture river/stream/creek "
        "lake/pond sea/ocean street/road/avenue/highway city/town/urban village/rural/countryside",
    ),
    "food": (
        "food meal dish snack",
        "pizza cake/pastry/cupcake sandwich/burger/hamburger salad soup pasta/spaghetti/noodle rice bread/toast/loaf "
        "banana apple orange strawberry broccoli carrot potato/fries tomato egg/omelette cheese meat/steak/beef/pork "
        "donut/doughnut icecream cookie/biscuit mushroom olive ham/bacon sausage/hotdog",
    ),
    "drink": ("drink beverage", "water coffee/espresso/cappuccino tea wine beer/ale juice milk lemonade soda/cola"),
    "furniture": (
        "furniture",
        "chair/armchair/stool table/desk sofa/couch bed/cot/crib bench shelf/bookcase/bookshelf cupboard/cabinet lamp",
    ),
    "device": (
        "device electronics gadget",
        "laptop/computer/notebook phone/telephone/smartphone/cellphone television/tv camera keyboard microwave oven/stove "
        "refrigerator/fridge toaster clock/watch remote printer",
    ),
    "clothing": (
        "clothing clothes outfit garment",
        "shirt/tshirt/blouse jacket/coat/raincoat trousers/pants/jeans dress/gown skirt suit/tuxedo tie/necktie hat/cap/helmet "
        "shoe/boot/sneaker glove/mitten apron scarf uniform umbrella glasses/sunglasses backpack/bag/purse/suitcase/luggage",
    ),
    "action": (
        "",
        "stand walk run/jog sit lie/recline sleep/asleep/nap/doze eat/bite drink swim fly jump/leap fall cook/prepare/bake "
        "wash/clean play read write sing dance smile/grin laugh cry kiss hug fight throw/toss catch hold/carry ride drive",
    ),
    "season": (
        "season weather",
        "summer winter spring autumn/fall sunny/sunshine/sun rain/rainy snowing foggy/fog/mist storm",
    ),
    "hour": ("", "day/daytime/noon/midday night/nighttime/midnight morning/sunrise/dawn evening/sunset/dusk afternoon"),
    "size": ("size", "large/big/huge/giant/enormous/tall/massive small/little/tiny/miniature/short"),
    "age": ("age", "old/elderly/ancient/vintage/antique new/modern/recent young/youthful"),
    "side": ("side", "left right middle/center/centre top/above bottom/below"),
    "state": ("", "open closed/shut/locked empty full/filled/crowded/packed wet dry dirty"),
    "feeling": (
        "feeling emotion mood",
        "happy/joyful/cheerful/glad sad/unhappy/upset angry/mad/furious scared/afraid bored tired",
    ),
    "month": ("month", "january february march april may june july august september october november december"),
    "weekday": ("weekday", "monday tuesday wednesday thursday friday saturday sunday"),
}
# Names of no kind that several members answer to.
_ALSO = {
    "child": "boy/girl/baby",
    "kid": "boy/girl/baby",
    "youngster": "boy/girl",
    "parent": "man/woman",
    "person": "player/child/kid/chef/rider/surfer/skier/driver/officer/worker/astronaut/customer/friend/group/family",
    "cook": "chef/food/kitchen",
    "player": "swing/racket",
    "wear": "dressed/in",
    "sea": "beach/wave/shore",
    "vehicle": "traffic",
    "outdoors": "street/beach/field/park",
    "dessert": "cake/pastry/donut/cookie",
    "fruit": "banana/apple/orange/strawberry",
    "vegetable": "broccoli/carrot/potato/tomato",
}


@lru_cache(maxsize=1)
def _members() -> dict[str, dict[str, str]]:
    """For each stem, the member it names in each kind that it belongs to."""
    found: dict[str, dict[str, str]] = {}
    for kind, (_, members) in _KINDS.items():
        for member in members.split():
            names = member.split("/")
            for name in names:
                found.setdefault(stem(name), {})[kind] = names[0]
    return found


@lru_cache(maxsize=1)
def _wider() -> dict[str, frozenset[str]]:
    """For each stem that names a whole kind, or several members, the stems that answer to it."""
    found: dict[str, set[str]] = {}
    for names, members in _KINDS.values():
        below = {stem(name) for member in members.split() for name in member.split("/")}
        for name in names.split():
            found.setdefault(stem(name), set()).update(below)
    for name, members_of in _ALSO.items():
        below = set()
        for member in members_of.split("/"):
            below.add(stem(member))
            for kind, head in _members().get(stem(member), {}).items():
                below |= {s for s, kinds in _members().items() if kinds.get(kind) == head}
        found.setdefault(stem(name), set()).update(below)
    return {name: frozenset(below) for name, below in found.items()}


def supports(claimed: str, given: str) -> bool | None:
    """Whether `given` supports `claimed`, both stems: True, False where they exclude each other, None if unknown."""
    if claimed == given or given in _wider().get(claimed, ()):
        return True
    ours, theirs = _members().get(claimed, {}), _members().get(given, {})
    shared = ours.keys() & theirs.keys()
    if shared:
        return any(ours[kind] == theirs[kind] for kind in shared)
    # A kind does not tell its member: "an animal" is no support for "a dog".
    return False if claimed in _wider().get(given, ()) else None
