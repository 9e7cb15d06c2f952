"""What a vision model says it sees: whether the image's own embedding stands behind it.

A caption says little of what a photo shows, so a sentence about an image that its caption does not support
need not be wrong. `ImageSupport` asks the encoder: is this sentence nearer to this image than ordinary
sentences about other things are? Cosines of text and image have no natural zero and another scale in each
encoder, so the sentence's cosine is placed among those of `BACKGROUND`, fixed captions over many subjects:
its percentile among them means the same for every encoder.

It finds that a sentence is about what the image shows. It cannot see whether the details are right: colour,
number, place of things in the picture, and writing in it are beyond an embedding of the whole image, the
more so with `compact`, which knows ImageNet's classes only. So such a sentence is marked "from the image",
never "supported", and one with a name that is in no evidence stays unsupported.
"""

# Lists are easier to read in long lines.

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.base import Encoder
from retrieval.encoders.text_side import readable

#: A sentence is from the image when it beats this share of the background.
MIN_PERCENTILE = 0.95

BACKGROUND = (
    "A man is playing tennis on a court",
    "A plate of food with meat and vegetables",
    "A train at a railway station",
    "A cat is lying on a bed",
    "Two dogs are playing in the grass",
    "A group of people are skiing down a mountain",
    "A kitchen with a stove and a refrigerator",
    "A bathroom with a white toilet and a sink",
    "A bus on a city street",
    "A man is surfing on a wave",
    "A plane is flying in the sky",
    "A giraffe is standing in a field",
    "An elephant is walking through the savannah",
    "A vase of flowers on a table",
    "A birthday cake with candles",
    "A person is riding a motorcycle",
    "A child is flying a kite on the beach",
    "A baseball player swings a bat",
    "A laptop computer on a wooden desk",
    "A clock on a tower",
    "A traffic light at a crossing",
    "A fire hydrant",
    "A herd of sheep on a hillside",
    "A bird is sitting on a branch",
    "A woman is holding an umbrella",
    "A bowl of fruit",
    "A pizza on a table",
    "A boat on a lake",
    "A horse is pulling a carriage",
    "A bench in a park",
    "A stop sign",
    "A bookshelf full of books",
    "A glass of red wine",
    "A stuffed teddy bear",
    "A bear is catching fish in a river",
    "A zebra is drinking water",
    "A crowd is watching a football match",
    "A skateboarder does a trick",
    "A bicycle",
    "A mountain covered with snow",
    "A sunset over the sea",
    "A waterfall in a forest",
    "A desert with sand dunes",
    "A bridge over a river",
    "A castle on a hill",
    "A church with stained glass windows",
    "A market with vegetables",
    "A rocket is being launched",
    "An astronaut in a space suit",
    "The surface of the moon",
    "A microscope image of cells",
    "A page of printed text",
    "A map of a city",
    "A chart with numbers and bars",
    "An oil painting of a landscape",
    "A portrait of an old man",
    "A baby is sleeping",
    "A wedding couple",
    "A doctor with a patient",
    "A classroom of pupils",
    "A factory with machines",
    "A ship in a harbour",
    "A field of wheat",
    "A spider in its web",
    "A butterfly on a flower",
    "A fish in an aquarium",
    "A snake on a rock",
    "A frog in a pond",
    "A cup of coffee",
    "A loaf of bread",
    "A guitar on a stage",
    "An orchestra is playing",
    "A pair of shoes",
    "A hat on a shelf",
    "A suitcase at an airport",
    "A tractor in a field",
    "A farmer with cows",
    "A chess board",
    "A computer keyboard",
    "A mobile phone",
    "A television",
    "A fireman in front of a burning house",
    "A policeman on a horse",
    "A soldier in uniform",
    "A statue in a square",
    "A fountain in a garden",
    "A tent in the woods",
    "A campfire at night",
    "The skyline of a city at night",
    "A swimming pool",
    "A gymnast in a hall",
    "A boxing match",
    "A racing car on a track",
    "A broken window",
    "A pile of rubbish",
    "A handwritten letter",
    "Coins and banknotes",
    "A key in a lock",
    "A bottle on a shelf",
)


class ImageSupport:
    """Judges sentences against images by one encoder. Thread-safe; the background is embedded at the first use."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()
        self._background: NDArray[np.float32] | None = None

    def percentile(self, sentence: str, image: NDArray[np.float32]) -> float:
        """The share of the background sentences that `sentence` beats in nearness to `image`, a unit (d,) vector.

        0 for a sentence that the encoder cannot read, whose vector is nought.
        """
        with self._lock:
            if self._background is None:
                self._background = self._encoder.encode_texts(BACKGROUND)
        row = self._encoder.encode_texts([sentence])[0]
        # A sentence that the encoder cannot read is near to nothing.
        return float(np.mean(self._background @ image < float(row @ image))) if readable(row) else 0.0
