"""Uses a running Space from Python: samples, a morph, sliders. It needs `pip install gradio_client` alone.

    make demo                                                         # in another terminal: the Space on this machine
    python examples/space_client.py                                   # http://127.0.0.1:7860
    python examples/space_client.py me/photos-space --model photos-vae    # a Space on the Hub

space/README.md lists all endpoints and their parameters.
"""

import argparse
import shutil
from pathlib import Path

from gradio_client import Client, handle_file


parser = argparse.ArgumentParser(description="Saves a sample, a morph and a moved image of a Space.")
parser.add_argument("space", nargs="?", default="http://127.0.0.1:7860", help="its address, or its id on the Hub")
parser.add_argument("--model", default="cats-vae", help="a model that the Space shows, with an encoder")
arguments = parser.parse_args()
client = Client(arguments.space, verbose=False)


def save(file: str, name: str) -> None:
    """Copies a file that the client downloaded to this folder."""
    shutil.copy(file, name + Path(file).suffix)


# Images come with a caption that says how to make them again. The client downloads the files.
sampled = client.predict(model=arguments.model, count=4, seed=7, temperature=1.0, prior="own", api_name="/sample")
for each in sampled:
    print(each["caption"])
start, end = (each["image"] for each in sampled[:2])
save(start, "sample")

# Morph one image into the other. Your own files work too: handle_file("photo.jpg").
frames, animation, file = client.predict(
    models=[arguments.model],
    start=handle_file(start),
    end=handle_file(end),
    start_seed=0,
    end_seed=0,
    path="own",
    frames=24,
    speed=16,
    file_format="gif",
    api_name="/interpolate",
)
save(file, "morph")

# Move the second sample along two sliders, in standard deviations.
moved = client.predict(
    model=arguments.model,
    seed=7,
    image=2,
    temperature=1.0,
    prior="own",
    picture=None,
    component_1=2.5,
    component_2=-1.0,
    api_name="/latent_pca",
)
save(moved, "moved")
