"""Draw the pictures of `input/`.

Run it to make them again: `python make_input.py [FOLDER]`. All randomness is seeded, so the same
Pillow gives the same bytes. The texts of `input/` are in the public domain; nothing makes them.
"""

import colorsys
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

Colour: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]

HERE: Final = Path(__file__).resolve().parent
BICUBIC: Final = Image.Resampling.BICUBIC
LANCZOS: Final = Image.Resampling.LANCZOS


def hills(random: Random) -> Image.Image:
    """Paint ranges of hills at dusk, the near ones darker and rougher."""
    width, height = 2000, 1250
    picture = _gradient((width, height), ["#1d2b53", "#7e3f7d", "#e8795a", "#ffd08a", "#ffe9c2"])
    glow = Image.new("L", picture.size)
    draw = ImageDraw.Draw(glow)
    for radius, light in ((420, 40), (260, 70), (150, 120), (92, 255)):
        draw.ellipse((1330 - radius, 600 - radius, 1330 + radius, 600 + radius), fill=light)
    disc = glow.point(lambda light: light // 255 * 255)
    halo = ImageChops.lighter(glow.filter(ImageFilter.GaussianBlur(60)), disc)
    picture.paste("#fff4d6", mask=halo.filter(ImageFilter.GaussianBlur(2)))
    for layer in range(7):
        near = layer / 6
        ridge = _ridge(random, width, 620 + 560 * near**1.3, 150 + 90 * near, 0.42 + 0.13 * near)
        colour = _mix("#d98a78", "#150f26", near**0.7)
        ImageDraw.Draw(picture).polygon([(0, height), *ridge, (width, height)], fill=colour)
    return picture


def stars(random: Random) -> Image.Image:
    """Paint a sky of stars behind two clouds of gas."""
    side = 1600
    picture = Image.new("RGB", (side, side), "#04050d")
    for colour, floor in (("#31398f", 105), ("#b0356d", 140), ("#f0a45c", 176)):
        cloud = _clouds(random, (side, side)).point(lambda light, floor=floor: max(0, light - floor) * 2)
        picture = ImageChops.screen(picture, ImageOps.colorize(cloud, "black", colour))
    sky = Image.new("RGB", picture.size)
    draw = ImageDraw.Draw(sky)
    for _ in range(2600):
        x, y = random.uniform(0, side), random.uniform(0, side)
        radius = min(0.5 + random.paretovariate(2.2) * 0.5, 9)
        tint = _hsv(random.choice((0.08, 0.12, 0.6, 0.62)), random.uniform(0, 0.35), 1.0)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tint)
    blurred = sky.filter(ImageFilter.GaussianBlur(7)).point(lambda light: min(255, light * 3))
    return ImageChops.screen(picture, ImageChops.screen(sky.filter(ImageFilter.GaussianBlur(0.8)), blurred))


def tree(random: Random) -> Image.Image:
    """Draw a cherry tree that grew by one rule, over and over."""
    width, height = 960, 1200
    picture = _gradient((width, height), ["#bfe3f0", "#e9f3ea", "#fdf1e3"])
    draw = ImageDraw.Draw(picture)
    draw.ellipse((-500, 1060, 1460, 1700), fill="#7fa86b")
    blossoms: list[Point] = []

    def grow(x: float, y: float, angle: float, length: float) -> None:
        if length < 13:
            blossoms.append((x, y))
            return
        end_x, end_y = x + length * math.cos(angle), y - length * math.sin(angle)
        bark = _mix("#4a2f27", "#8a5a44", 1 - length / 240)
        draw.line((x, y, end_x, end_y), fill=bark, width=int(length / 6) + 1)
        for turn in (-0.42, 0.38, 0.06)[: 3 if length < 90 else 2]:
            lean = angle + turn + random.uniform(-0.16, 0.16)
            grow(end_x, end_y, lean, length * random.uniform(0.66, 0.82))

    grow(width / 2 - 30, 1110, math.pi / 2, 205)
    random.shuffle(blossoms)
    for x, y in blossoms:
        radius = random.uniform(3, 8)
        petal = _mix("#d9567f", "#ffe3ec", random.random())
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=petal)
    return picture


def mandelbrot(_random: Random) -> Image.Image:
    """Render a valley of the Mandelbrot set."""
    escape = Image.effect_mandelbrot((2000, 1500), (-0.7535, 0.0935, -0.7415, 0.1025), 255)
    colours = ["#00071f", "#0b3d91", "#7fd6ff", "#fff7d6", "#ff9d2e", "#7a1030", "#00071f"]
    return _paint(escape, colours, rounds=3).resize((1000, 750), LANCZOS)


def lissajous(_random: Random) -> Image.Image:
    """Draw one Lissajous figure for each pair of small frequencies."""
    cell, columns, rows = 600, 6, 4
    picture = Image.new("RGB", (cell * columns, cell * rows), "#10131a")
    draw = ImageDraw.Draw(picture)
    for row in range(rows):
        for column in range(columns):
            turns = [math.tau * step / 400 for step in range(401)]
            curve = [
                (
                    cell * (column + 0.5 + 0.4 * math.sin((column + 1) * turn + math.pi / 4)),
                    cell * (row + 0.5 + 0.4 * math.sin((row + 1) * turn)),
                )
                for turn in turns
            ]
            draw.line(curve, fill=_hsv(0.52 + 0.42 * (column + row) / 9, 0.6, 1.0), width=9, joint="curve")
    return picture.resize((1800, 1200), LANCZOS)


def poster(random: Random) -> Image.Image:
    """Set a poster in type."""
    width, height = 1000, 1400
    picture = Image.new("RGB", (width, height), "#f3ead7")
    draw = ImageDraw.Draw(picture)
    for index in range(90):
        x, y = 80 + index % 10 * 84, 640 + index // 10 * 74
        size = 10 + 30 * (1 - math.hypot(x - 500, y - 940) / 620)
        box = (x - size + 42, y - size, x + size + 42, y + size)
        ink = ("#d8432b", "#16324f", "#e9a820")[index % 3]
        draw.pieslice(box, random.choice((0, 90, 180, 270)), 360, fill=ink)
    for text, size, top, colour in (
        ("waiting", 228, 40, "#16324f"),
        ("is a number", 138, 268, "#d8432b"),
        ("do the work, store the result, ack", 49, 470, "#16324f"),
        ("a poster for a queue", 36, 1316, "#16324f"),
    ):
        draw.text((70, top), text, fill=colour, font=ImageFont.load_default(size))
    return picture


def maze(random: Random) -> Image.Image:
    """Carve a maze and draw the way through it."""
    columns, rows, cell = 100, 66, 16
    came_from, trail = {(0, 0): (0, 0)}, [(0, 0)]
    while trail:
        x, y = trail[-1]
        around = [(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)]
        free = [(a, b) for a, b in around if 0 <= a < columns and 0 <= b < rows and (a, b) not in came_from]
        if free:
            trail.append(random.choice(free))
            came_from[trail[-1]] = (x, y)
        else:
            trail.pop()
    picture = Image.new("RGB", ((columns + 1) * cell, (rows + 1) * cell), "#20242c")
    draw = ImageDraw.Draw(picture)

    def corridor(here: tuple[int, int], colour: str | Colour, width: int) -> None:
        (x, y), (a, b) = here, came_from[here]
        ends = [value * cell + cell for value in (min(x, a), min(y, b), max(x, a), max(y, b))]
        draw.rectangle((ends[0] - width, ends[1] - width, ends[2] + width, ends[3] + width), fill=colour)

    for here in came_from:
        corridor(here, "#e8e4da", 5)
    here, step = (columns - 1, rows - 1), 0
    while here != (0, 0):
        corridor(here, _hsv(0.98 - step / 3200 % 1, 0.75, 0.9), 3)
        here, step = came_from[here], step + 1
    return picture


def newton(_random: Random) -> Image.Image:
    """Colour each point by the cube root of one that Newton's method finds from it."""
    width, height = 480, 320
    roots = [complex(math.cos(angle), math.sin(angle)) for angle in (0, math.tau / 3, -math.tau / 3)]
    shades = [[_hsv(hue, 0.75, 1 - step / 26) for step in range(25)] for hue in (0.04, 0.46, 0.66)]
    pixels = bytearray()
    for row in range(height):
        for column in range(width):
            z, step, nearest = complex(column - width / 2 + 0.5, row - height / 2 + 0.5) / 130, 0, 0
            while step < 24:
                z = (2 * z + 1 / (z * z)) / 3
                distances = [abs(z - root) for root in roots]
                nearest = distances.index(min(distances))
                if distances[nearest] < 0.05:
                    break
                step += 1
            pixels += bytes(shades[nearest][step])
    return Image.frombytes("RGB", (width, height), bytes(pixels)).resize((1440, 960), BICUBIC)


def voronoi(random: Random) -> Image.Image:
    """Lay a mosaic: each tile is what is nearest to its own centre."""
    width, height = 2000, 1400
    picture = Image.new("RGB", (width, height), "#1b1b1e")
    draw = ImageDraw.Draw(picture)
    centres = [(random.gauss(width / 2, 520), random.gauss(height / 2, 380)) for _ in range(420)]
    for centre in centres:
        tile: list[Point] = [(-9, -9), (width + 9, -9), (width + 9, height + 9), (-9, height + 9)]
        for other in sorted(centres, key=lambda each: math.dist(each, centre))[1:40]:
            tile = _nearer(tile, centre, other)
        angle = math.atan2(centre[1] - height / 2, centre[0] - width / 2) / math.tau
        colour = _hsv(angle % 1, random.uniform(0.45, 0.75), random.uniform(0.7, 1.0))
        if len(tile) > 2:
            draw.polygon(tile, fill=colour, outline="#1b1b1e", width=5)
    return picture.resize((1500, 1050), LANCZOS)


def contours(random: Random) -> Image.Image:
    """Map an island that is not there, with a line for every height."""
    size = (1500, 970)
    height = _clouds(random, size, cells=4)
    sea = Image.radial_gradient("L").resize(size, BICUBIC)
    height = ImageChops.subtract(height, sea.point(lambda far: max(0, far - 90)))
    bands = height.point(lambda level: level // 12 * 12)
    land = _paint(bands, ["#274b6d", "#3f7ea6", "#e8d9a0", "#8fb573", "#5b8a57", "#a5855c", "#f4f0ea"], 1)
    lines = bands.filter(ImageFilter.FIND_EDGES).point(lambda edge: 120 if edge else 0)
    land.paste("#2a2320", mask=lines)
    return land


def life(_random: Random) -> list[Image.Image]:
    """Let Gosper's gun shoot gliders, one picture a generation."""
    gun = (
        "24,0 22,1 24,1 12,2 13,2 20,2 21,2 34,2 35,2 11,3 15,3 20,3 21,3 34,3 35,3 0,4 1,4 10,4 16,4 "
        "20,4 21,4 0,5 1,5 10,5 14,5 16,5 17,5 22,5 24,5 10,6 16,6 24,6 11,7 15,7 12,8 13,8"
    )
    alive = {(int(x) + 3, int(y) + 3) for x, y in (cell.split(",") for cell in gun.split())}
    frames = []
    for generation in range(210):
        if generation >= 150:
            frames.append(_cells(alive))
        near: dict[tuple[int, int], int] = {}
        for x, y in alive:
            for dx, dy in ((-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)):
                near[x + dx, y + dy] = near.get((x + dx, y + dy), 0) + 1
        alive = {cell for cell, count in near.items() if count == 3 or (count == 2 and cell in alive)}
    return frames


def plot(random: Random) -> Image.Image:
    """Plot sixty random walks and the square root they keep to."""
    width, height, left, middle = 2560, 1440, 160, 720
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(40)
    for line in range(-6, 7):
        draw.line((left, middle + line * 100, width - 80, middle + line * 100), fill="#d9dde3", width=3)
        draw.text((60, middle - line * 100 - 24), f"{line * 10:+d}", fill="#6b7280", font=font)
    for walk in range(60):
        y, path = 0, [(float(left), float(middle))]
        for step in range(1, 581):
            y += random.choice((-1, 1))
            path.append((left + step * 4, middle - y * 10))
        draw.line(path, fill=_hsv(0.5 + walk / 240, 0.55, 0.85), width=4)
    for sign in (-1, 1):
        bound = [(left + step * 4, middle + sign * 20 * math.sqrt(step)) for step in range(581)]
        draw.line(bound, fill="#b91c1c", width=8)
    return picture.resize((1280, 720), LANCZOS).quantize(64, dither=Image.Dither.NONE)


def _cells(alive: Iterable[tuple[int, int]]) -> Image.Image:
    frame = Image.new("P", (480, 360), 0)
    frame.putpalette([14, 22, 30, 126, 231, 135])
    draw = ImageDraw.Draw(frame)
    for x, y in alive:
        draw.rectangle((x * 8 + 1, y * 8 + 1, x * 8 + 6, y * 8 + 6), fill=1)
    return frame


def _nearer(tile: Sequence[Point], centre: Point, other: Point) -> list[Point]:
    """Return the part of a convex tile that is nearer to its centre than to another."""

    def beyond(point: Point) -> float:
        return math.dist(point, centre) ** 2 - math.dist(point, other) ** 2

    kept: list[Point] = []
    for (ax, ay), (bx, by) in zip(tile, [*tile[1:], *tile[:1]], strict=True):
        a, b = beyond((ax, ay)), beyond((bx, by))
        if a <= 0:
            kept.append((ax, ay))
        if (a <= 0) != (b <= 0):
            kept.append((ax + (bx - ax) * a / (a - b), ay + (by - ay) * a / (a - b)))
    return kept


def _ridge(random: Random, width: int, base: float, swing: float, roughness: float) -> list[Point]:
    """Return a mountain line by displacing midpoints."""
    heights = [random.uniform(-0.5, 0.5) * swing, random.uniform(-0.5, 0.5) * swing]
    while len(heights) <= 1024:
        swing *= roughness
        middles = [(a + b) / 2 + random.uniform(-1, 1) * swing for a, b in pairwise(heights)]
        heights = [each for pair in zip(heights, middles, strict=False) for each in pair] + heights[-1:]
    return [(index * width / (len(heights) - 1), base + each) for index, each in enumerate(heights)]


def _clouds(random: Random, size: tuple[int, int], cells: int = 3) -> Image.Image:
    """Return smooth noise: random grids, each finer and fainter than the last."""
    noise = Image.new("L", size, 128)
    for octave in range(7):
        columns = cells * 2**octave
        rows = max(2, columns * size[1] // size[0])
        weight = 0.62**octave / 2
        grid = Image.frombytes("L", (columns, rows), random.randbytes(columns * rows))
        fine = grid.point(lambda light, weight=weight: light * weight).resize(size, BICUBIC)
        noise = ImageChops.add(noise, fine, offset=-int(127 * weight))
    return ImageOps.autocontrast(noise)


def _paint(grey: Image.Image, colours: Sequence[str], rounds: int) -> Image.Image:
    """Return a grey picture in colours: the scale runs through them that many times."""
    spots = [(level * rounds / 256 % 1) * (len(colours) - 1) for level in range(256)]
    ramp = [_mix(colours[int(spot)], colours[int(spot) + 1], spot % 1) for spot in spots]
    return Image.merge("RGB", [grey.point([colour[band] for colour in ramp]) for band in range(3)])


def _gradient(size: tuple[int, int], colours: Sequence[str]) -> Image.Image:
    return _paint(Image.linear_gradient("L"), colours, 1).resize(size, BICUBIC)


def _mix(one: str, other: str, part: float) -> Colour:
    a, b = (bytes.fromhex(colour[1:]) for colour in (one, other))
    red, green, blue = (round(x + (y - x) * part) for x, y in zip(a, b, strict=True))
    return red, green, blue


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


PICTURES: Final[dict[str, Callable[[Random], Image.Image | list[Image.Image]]]] = {
    "hills.jpg": hills, "stars.jpg": stars, "tree.jpg": tree,
    "lissajous.png": lissajous, "mandelbrot.png": mandelbrot, "maze.png": maze, "poster.png": poster,
    "contours.webp": contours, "newton.webp": newton, "voronoi.webp": voronoi,
    "life.gif": life, "plot.gif": plot,
}  # fmt: skip


def make(folder: Path, names: Iterable[str] = tuple(PICTURES)) -> None:
    """Write pictures into a folder that exists; all of them unless some are named."""
    for name in names:
        picture = PICTURES[name](Random(name))  # noqa: S311 - a picture keeps no secret
        if isinstance(picture, list):
            picture[0].save(folder / name, save_all=True, append_images=picture[1:], duration=60, loop=0)
        elif name.endswith(".png"):
            picture.quantize(128, dither=Image.Dither.NONE).save(folder / name, optimize=True)
        else:
            picture.save(folder / name, quality=72)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "input")
