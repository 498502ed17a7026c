"""Copies of photos as people make them, for benchmarks/duplicates.py."""

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from dataset.images.io import open_photo


@dataclass(frozen=True)
class Draw:
    """What a change may use.

    Attributes:
        random: Random numbers.
        others: Other photos, for collages and insets.
    """

    random: random.Random
    others: Sequence[Image.Image]

    def other(self) -> Image.Image:
        """Return another photo."""
        return self.random.choice(self.others)


Change = Callable[[Image.Image, Draw], Image.Image]


def encoded(quality: int) -> Change:
    """Return a change that encodes a photo as a JPEG of a given quality."""

    def change(photo: Image.Image, _draw: Draw) -> Image.Image:
        out = io.BytesIO()
        photo.convert("RGB").save(out, "JPEG", quality=quality)
        return open_photo(out.getvalue())

    return change


def scaled(factor: float) -> Change:
    """Return a change that resizes a photo by a factor."""
    return lambda photo, _: photo.resize((int(photo.width * factor), int(photo.height * factor)))


def cropped(part: float) -> Change:
    """Return a change that crops a random region, with both sides shortened by a fraction."""

    def change(photo: Image.Image, draw: Draw) -> Image.Image:
        width, height = (round(side * (1 - part)) for side in photo.size)
        left = draw.random.randint(0, photo.width - width)
        top = draw.random.randint(0, photo.height - height)
        return photo.crop((left, top, left + width, top + height))

    return change


def cut(left: float, top: float, right: float, bottom: float) -> Change:
    """Return a change that cuts fractions of the sides off."""
    return lambda photo, _: photo.crop(
        (
            round(photo.width * left),
            round(photo.height * top),
            round(photo.width * (1 - right)),
            round(photo.height * (1 - bottom)),
        )
    )


def toned(red: float, green: float, blue: float, shift: float = 0, contrast: float = 1) -> Change:
    """Return a change that multiplies the channels and changes brightness and contrast."""

    def change(photo: Image.Image, _draw: Draw) -> Image.Image:
        values = np.asarray(photo, np.float32) * [red, green, blue] + shift
        toned_photo = Image.fromarray(values.clip(0, 255).astype(np.uint8))
        return ImageEnhance.Contrast(toned_photo).enhance(contrast)

    return change


def shifted(photo: Image.Image, _draw: Draw) -> Image.Image:
    """Make the photo warmer, brighter and of higher contrast."""
    warmer = toned(1.12, 1, 0.86, 8, 1.25)(photo, _draw)
    return ImageEnhance.Brightness(warmer).enhance(1.1)


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(8, size))


def watermarked(photo: Image.Image, _draw: Draw) -> Image.Image:
    """Write a shop name across the middle and a word in a corner."""
    layer = Image.new("RGBA", photo.size, (0, 0, 0, 0))
    pen, font = ImageDraw.Draw(layer), _font(photo.width // 9)
    places = [
        (0.1, 0.45, "@myshop.example", (255, 255, 255, 150)),
        (0.6, 0.92, "SALE", (255, 0, 0, 230)),
    ]
    for x, y, text, colour in places:
        pen.text((photo.width * x, photo.height * y), text, font=font, fill=colour)
    return Image.alpha_composite(photo.convert("RGBA"), layer).convert("RGB")


def tiled(photo: Image.Image, draw: Draw) -> Image.Image:
    """Write a shop name all over the photo, slanted and half transparent."""
    size = 2 * max(photo.size)
    layer = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    pen, font = ImageDraw.Draw(layer), _font(photo.width / 16)
    step = photo.height // 7
    for row, y in enumerate(range(0, size, step)):
        pen.text(
            (-(row % 3) * step, y), "EXAMPLESHOP.ORG " * 12, font=font, fill=(255, 255, 255, 110)
        )
    layer = layer.rotate(draw.random.choice([20, 30, -30]))
    left, top = (size - photo.width) // 2, (size - photo.height) // 2
    layer = layer.crop((left, top, left + photo.width, top + photo.height))
    return Image.alpha_composite(photo.convert("RGBA"), layer).convert("RGB")


def corner_logo(photo: Image.Image, draw: Draw) -> Image.Image:
    """Draw a small logo into a corner."""
    copy, size = photo.copy(), photo.width * 0.12
    x = draw.random.choice([0.02, 0.86]) * photo.width
    y = draw.random.choice([0.02 * photo.height, 0.98 * photo.height - size])
    pen = ImageDraw.Draw(copy)
    pen.ellipse([x, y, x + size, y + size], fill="black", outline="white", width=2)
    pen.text((x + size * 0.25, y + size * 0.2), "ab", font=_font(size * 0.5), fill="white")
    return copy


def noisy(photo: Image.Image, draw: Draw) -> Image.Image:
    """Add sensor noise of 12 grey levels."""
    noise = np.random.default_rng(draw.random.randrange(1 << 30)).normal(
        0, 12, (photo.height, photo.width, 3)
    )
    return Image.fromarray((np.asarray(photo) + noise).clip(0, 255).astype(np.uint8))


def stickered(photo: Image.Image, _draw: Draw) -> Image.Image:
    """Draw a yellow disk, a third of the width, over a corner."""
    copy = photo.copy()
    size = photo.width * 0.3
    corner = [photo.width * 0.65, photo.height * 0.05]
    ImageDraw.Draw(copy).ellipse([*corner, corner[0] + size, corner[1] + size], fill=(255, 220, 0))
    return copy


def priced(photo: Image.Image, draw: Draw) -> Image.Image:
    """Put a price tag anywhere."""
    copy = photo.copy()
    pen, size = ImageDraw.Draw(copy), photo.width * 0.1
    x = draw.random.uniform(0.02, 0.55) * photo.width
    y = draw.random.uniform(0.02, 0.85) * photo.height
    pen.rounded_rectangle([x, y, x + 4 * size, y + 1.4 * size], size / 4, fill=(220, 0, 0))
    text = f"{draw.random.randrange(500, 5000)} rub"
    pen.text((x + size * 0.3, y + size * 0.2), text, font=_font(size * 0.8), fill="white")
    return copy


def badge(photo: Image.Image, draw: Draw) -> Image.Image:
    """Put a round badge anywhere."""
    copy, size = photo.copy(), photo.width * 0.28
    x = draw.random.uniform(0, photo.width - size)
    y = draw.random.uniform(0, photo.height - size)
    pen = ImageDraw.Draw(copy)
    pen.ellipse([x, y, x + size, y + size], fill=draw.random.choice(["red", "#0a0", "orange"]))
    pen.text((x + size * 0.2, y + size * 0.35), "-30%", font=_font(size * 0.3), fill="white")
    return copy


def emoji_faces(photo: Image.Image, draw: Draw) -> Image.Image:
    """Put three yellow faces anywhere."""
    copy = photo.copy()
    pen = ImageDraw.Draw(copy)
    for _ in range(3):
        size = photo.width * draw.random.uniform(0.1, 0.18)
        x = draw.random.uniform(0, photo.width - size)
        y = draw.random.uniform(0, photo.height - size)
        pen.ellipse([x, y, x + size, y + size], fill="#fc3", outline="#a70")
        for eye in (0.3, 0.6):
            left, top = x + size * eye, y + size * 0.3
            pen.ellipse([left, top, left + size * 0.1, top + size * 0.15], fill="#530")
        pen.arc(
            [x + size * 0.2, y + size * 0.3, x + size * 0.8, y + size * 0.8], 20, 160, "#530", 3
        )
    return copy


def caption_bar(place: str, part: float = 0.18, over: bool = True) -> Change:
    """Return a change that writes a caption on a bar over an edge or beside it."""

    def change(photo: Image.Image, draw: Draw) -> Image.Image:
        height = round(photo.height * part)
        size = (photo.width, photo.height + (0 if over else height))
        colour, ink = draw.random.choice([("black", "white"), ("white", "red"), ("#fd0", "black")])
        page = Image.new("RGB", size, colour)
        page.paste(photo, (0, height if place == "top" and not over else 0))
        top = 0 if place == "top" else size[1] - height
        pen = ImageDraw.Draw(page)
        pen.rectangle([0, top, size[0], top + height], fill=colour)
        pen.text(
            (10, top + height * 0.1), "SALE -30 %\nonly today", fill=ink, font=_font(height / 3)
        )
        return page

    return change


def large_text(photo: Image.Image, draw: Draw) -> Image.Image:
    """Write large text over the photo."""
    copy, size = photo.copy(), photo.width * 0.17
    text = draw.random.choice(["SALE 50%", "NEW\nDROP", "summer 26", "only\n999"])
    place = (photo.width * 0.05, photo.height * draw.random.uniform(0.05, 0.65))
    ImageDraw.Draw(copy).multiline_text(
        place,
        text,
        font=_font(size),
        fill=draw.random.choice(["white", "red", "yellow", "black"]),
        stroke_width=3,
        stroke_fill="#222",
    )
    return copy


def phone_screenshot(photo: Image.Image, draw: Draw) -> Image.Image:
    """Show the photo in an app on a phone."""
    is_dark = draw.random.random() < 0.5
    page = Image.new("RGB", (540, 1170), "#111" if is_dark else "white")
    ink, pen = "#eee" if is_dark else "#222", ImageDraw.Draw(page)
    shown = ImageOps.contain(photo, (540, 760))
    page.paste(shown, ((540 - shown.width) // 2, 130))
    hour = f"{draw.random.randrange(24):02}:{draw.random.randrange(60):02}"
    pen.text((24, 18), f"{hour}            LTE  {draw.random.randrange(10, 99)}%", ink, _font(24))
    pen.text((24, 76), f"user_{draw.random.randrange(1000)}", ink, _font(28))
    below = 130 + shown.height
    pen.text((24, below + 20), f"{draw.random.randrange(9, 999)} likes", ink, _font(24))
    pen.multiline_text((24, below + 60), "New in our shop!\n#fashion #style", ink, font=_font(24))
    pen.rectangle([0, 1090, 540, 1170], fill="#333" if is_dark else "#ddd")
    return page


def browser_screenshot(photo: Image.Image, draw: Draw) -> Image.Image:
    """Show the photo on a product page in a browser."""
    page = Image.new("RGB", (1280, 800), "white")
    pen = ImageDraw.Draw(page)
    pen.rectangle([0, 0, 1280, 70], fill="#dee1e6")
    pen.rounded_rectangle([120, 18, 860, 52], 16, fill="white")
    number = draw.random.randrange(10_000)
    pen.text((140, 24), f"https://shop.example/p/{number}", "black", _font(20))
    page.paste(ImageOps.contain(photo, (560, 660)), (60, 110))
    lines = ("Polo shirt", f"{number} rub", "S   M   L   XL", "Add to cart", "Delivery", "Reviews")
    for row, text in enumerate(lines):
        pen.text((680, 130 + 80 * row), text, "black", _font(30))
    return page


def collage(columns: int, rows: int) -> Change:
    """Return a change that shows the photo among others."""

    def change(photo: Image.Image, draw: Draw) -> Image.Image:
        photos = [photo, *(draw.other() for _ in range(columns * rows - 1))]
        draw.random.shuffle(photos)
        page = Image.new("RGB", (420 * columns, 420 * rows), "white")
        for number, member in enumerate(photos):
            place = (number % columns * 420 + 4, number // columns * 420 + 4)
            page.paste(ImageOps.contain(member, (412, 412)), place)
        return page

    return change


def inset(photo: Image.Image, draw: Draw) -> Image.Image:
    """Set another product into a corner."""
    copy, other = photo.copy(), draw.other().copy()
    other.thumbnail((photo.width * 0.36, photo.height * 0.36))
    other = ImageOps.expand(other, 3, "white")
    x = draw.random.choice([4, photo.width - other.width - 4])
    y = draw.random.choice([4, photo.height - other.height - 4])
    copy.paste(other, (x, y))
    return copy


def set_in(photo: Image.Image, draw: Draw) -> Image.Image:
    """Set the photo into a corner of another one."""
    return inset(draw.other(), Draw(draw.random, [photo]))


def blurred_sides(ratio: float) -> Change:
    """Return a change that fills a page of a given ratio of the sides with the blurred photo."""

    def change(photo: Image.Image, _draw: Draw) -> Image.Image:
        size = _page_size(photo, ratio)
        page = ImageOps.fit(photo, size).filter(ImageFilter.GaussianBlur(size[0] / 20))
        page.paste(photo, ((size[0] - photo.width) // 2, (size[1] - photo.height) // 2))
        return page

    return change


def barred(ratio: float) -> Change:
    """Return a change that fills a page of a given ratio of the sides with bars."""

    def change(photo: Image.Image, draw: Draw) -> Image.Image:
        colour = draw.random.choice(["white", "black", "#eee"])
        size = _page_size(photo, ratio)
        page = Image.new("RGB", size, colour)
        page.paste(photo, ((size[0] - photo.width) // 2, (size[1] - photo.height) // 2))
        return page

    return change


def _page_size(photo: Image.Image, ratio: float) -> tuple[int, int]:
    width, height = photo.size
    return max(width, round(height * ratio)), max(height, round(width / ratio))


def square_cut(place: float) -> Change:
    """Return a change that cuts a square out; 0 is the top or the left, 1 the other end."""

    def change(photo: Image.Image, _draw: Draw) -> Image.Image:
        side = min(photo.size)
        return ImageOps.fit(photo, (side, side), centering=(place, place))

    return change


def thumbnail(side: int) -> Change:
    """Return a change that makes a small square."""
    return lambda photo, _: ImageOps.fit(photo, (side, side))


def cut_out(colour: str) -> Change:
    """Return a change that replaces the background, found with GrabCut, by a colour."""

    def change(photo: Image.Image, _draw: Draw) -> Image.Image:
        small = ImageOps.contain(photo, (320, 320))
        mask = np.full((small.height, small.width), cv2.GC_BGD, np.uint8)
        inner = (
            slice(small.height // 20, -small.height // 20),
            slice(small.width // 20, -small.width // 20),
        )
        mask[inner] = cv2.GC_PR_FGD
        models = np.zeros((1, 65)), np.zeros((1, 65))
        pixels = np.asarray(small)[..., ::-1].copy()
        cv2.grabCut(pixels, mask, (0, 0, 1, 1), *models, 2, cv2.GC_INIT_WITH_MASK)
        is_shown = ((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)).astype(np.uint8) * 255
        page = Image.new("RGB", photo.size, colour)
        page.paste(photo, (0, 0), Image.fromarray(is_shown).resize(photo.size))
        return page

    return change


def story(photo: Image.Image, draw: Draw) -> Image.Image:
    """Show the photo, smaller and slightly turned, on a gradient with a user name."""
    rows = np.linspace(0, 1, 960)[:, None, None]
    colours = np.array([[draw.random.randrange(256) for _ in range(3)] for _ in range(2)])
    gradient = np.broadcast_to(colours[0] * (1 - rows) + colours[1] * rows, (960, 540, 3))
    page = Image.fromarray(gradient.astype(np.uint8))
    shown = ImageOps.contain(photo, (420, 640)).convert("RGBA")
    shown = shown.rotate(draw.random.uniform(-6, 6), Image.Resampling.BICUBIC, expand=True)
    page.paste(shown, ((540 - shown.width) // 2, (960 - shown.height) // 2), shown)
    ImageDraw.Draw(page).text((120, 80), "@shop_account", "white", _font(36))
    return page


def chained(*changes: Change) -> Change:
    """Return a change that makes several, one after the other."""

    def change(photo: Image.Image, draw: Draw) -> Image.Image:
        for one in changes:
            photo = one(photo, draw)
        return photo

    return change


def mirrored(photo: Image.Image, _draw: Draw) -> Image.Image:
    """Mirror the photo."""
    return ImageOps.mirror(photo)


def _turned(degrees: float) -> Change:
    return lambda photo, _: photo.rotate(degrees, fillcolor="white")


KINDS: dict[str, Change] = {
    **{f"JPEG quality {quality}": encoded(quality) for quality in (90, 70, 50, 30, 10)},
    "half the size": scaled(0.5),
    "a quarter of the size": scaled(0.25),
    "double the size": scaled(2),
    "colours shifted": shifted,
    "grey": lambda photo, _: photo.convert("L").convert("RGB"),
    "white border 5 %": lambda photo, _: ImageOps.expand(photo, photo.width // 20, "white"),
    "black border 10 %": lambda photo, _: ImageOps.expand(photo, photo.width // 10, "black"),
    "padded to a square": lambda photo, _: ImageOps.pad(photo, (600, 600), color="white"),
    "bars above and below": lambda photo, _: ImageOps.expand(
        photo, (0, photo.height // 7), "black"
    ),
    "watermark": watermarked,
    "cropped 5 %": cropped(0.05),
    "cropped 10 %": cropped(0.10),
    "cropped 20 %": cropped(0.20),
    "mirrored": mirrored,
    "mirrored, cropped 5 %, quality 50": chained(mirrored, cropped(0.05), encoded(50)),
    "blurred, 2 pixels": lambda photo, _: photo.filter(ImageFilter.GaussianBlur(2)),
    "noise": noisy,
    "height reduced by 15 %": lambda photo, _: photo.resize(
        (photo.width, round(photo.height * 0.85))
    ),
    "rotated by 2 degrees": _turned(2),
    "rotated by 5 degrees": _turned(5),
    "rotated by 90 degrees": lambda photo, _: photo.transpose(Image.Transpose.ROTATE_90),
    "rotated by 180 degrees, quality 50": chained(lambda p, _: p.rotate(180), encoded(50)),
    "rotated by 90 degrees, mirrored": lambda photo, _: photo.transpose(Image.Transpose.TRANSPOSE),
    "sticker": stickered,
    "price tag": priced,
    "badge": badge,
    "emoji": emoji_faces,
    "corner logo": corner_logo,
    "tiled watermark": tiled,
    "caption bar over the bottom": caption_bar("bottom"),
    "caption bar over the top": caption_bar("top"),
    "caption below": caption_bar("bottom", over=False),
    "large text": large_text,
    "phone screenshot": phone_screenshot,
    "browser screenshot": browser_screenshot,
    "collage 2 x 1": collage(2, 1),
    "collage 2 x 2": collage(2, 2),
    "collage 3 x 3": collage(3, 3),
    "another product in a corner": inset,
    "in a corner of another photo": set_in,
    "blurred sides to a square": blurred_sides(1),
    "blurred sides to 9:16": blurred_sides(9 / 16),
    "bars to a square": barred(1),
    "bars to 9:16": barred(9 / 16),
    "square cut, top": square_cut(0),
    "square cut, middle": square_cut(0.5),
    "square cut, bottom": square_cut(1),
    "left cut by 15 %": cut(0.15, 0, 0, 0),
    "right cut by 25 %": cut(0, 0, 0.25, 0),
    "top cut by 15 %": cut(0, 0.15, 0, 0),
    "bottom cut by 15 %": cut(0, 0, 0, 0.15),
    "bottom cut by 30 %": cut(0, 0, 0, 0.3),
    "cut-out on white": cut_out("white"),
    "cut-out on a colour": cut_out("#d8c7b0"),
    "sepia": chained(lambda p, _: p.convert("L").convert("RGB"), toned(1.1, 0.9, 0.65)),
    "strong contrast": toned(1, 1, 1, 0, 1.8),
    "faded": toned(0.6, 0.6, 0.6, 80),
    "dark": toned(0.5, 0.5, 0.5),
    "cool filter": toned(0.8, 1, 1.25, 0, 1.2),
    "thumbnail of 150 pixels": chained(thumbnail(150), encoded(75)),
    "thumbnail of 96 pixels": chained(thumbnail(96), encoded(75)),
    "story": story,
    "mirrored, cropped, filtered, marked": chained(
        mirrored, cropped(0.1), toned(1.15, 1, 0.8, 0, 1.3), priced
    ),
    "screenshot of a caption": chained(caption_bar("top"), phone_screenshot),
    "screenshot, quality 30": chained(browser_screenshot, encoded(30)),
}

# Kinds that show other photos as well.
SHOWING_OTHERS = {
    "collage 2 x 1",
    "collage 2 x 2",
    "collage 3 x 3",
    "another product in a corner",
    "in a corner of another photo",
}
