"""Explain predictions with Grad-CAM: the areas of a photo that the score of a label depends on.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017, https://arxiv.org/abs/1610.02391.
"""

import io
from functools import lru_cache
from typing import Any

import keras
import matplotlib as mpl
import numpy as np
from PIL import Image

from dataset.errors import Failure
from model.inference.predictor import Predictor
from model.network.inception import parts_of, photo_views, view_boxes

# Weight of the colours over the photo where the evidence is strongest.
MAX_OPACITY = 0.7
# Smaller photos are enlarged.
MIN_SIDE_PIXELS, JPEG_QUALITY = 300, 85


def heat_map(
    features: keras.Model, head: keras.Model, pixels: np.ndarray, class_index: int
) -> np.ndarray:
    """Return how much each part of a photo contributes to the logit of a class.

    The head reads the global averages of several blocks, so that the gradient of the logit by a map
    is that by its average, everywhere: only the head is differentiated. The contributions of all
    blocks and views are added at the resolution of the photo. With a linear head, the mean of the
    result is about the logit, less that of features that are all zero.

    Args:
        features: Pixels -> backbone features, as `build_feature_network` builds it.
        head: Features -> logits.
        pixels: A photo as the network gets it, uint8 array of shape (size, size, channels).
        class_index: The class.

    Returns:
        Float32 array of shape (size, size); negative where there is evidence against the class.
    """
    outputs = _maps_network(features).predict_on_batch(pixels[None])
    outputs = outputs if isinstance(outputs, list) else [outputs]
    maps = [np.asarray(output, np.float32)[0] for output in outputs]
    means = np.concatenate([block.mean(axis=(0, 1)) for block in maps])
    gradient = _head_gradient(head, means, class_index)
    side = int(features.get_layer("backbone").input.shape[1])
    boxes = view_boxes(side, parts_of(features))
    views = len(boxes) * (2 if pixels.shape[-1] == 4 else 1)
    heat = np.zeros(pixels.shape[:2], np.float32)
    start = 0
    for number, block in enumerate(maps):
        weights = gradient[start : start + block.shape[-1]]
        start += block.shape[-1]
        left, top, right, bottom = boxes[number * views // len(maps) % len(boxes)]
        evidence = Image.fromarray((block @ weights).astype(np.float32))
        size = (right - left, bottom - top)
        resized = np.asarray(evidence.resize(size, Image.Resampling.BILINEAR))
        # Each view counts by its contribution to the logit, whatever its area.
        heat[top:bottom, left:right] += resized * (heat.size / (size[0] * size[1]))
    return heat


@lru_cache(2)
def _maps_network(features: keras.Model) -> keras.Model:
    """Return pixels -> the maps of each view and block, in the order of the features."""
    pixels = keras.Input(features.input.shape[1:], name="pixels")
    backbone = features.get_layer("backbone")
    maps: list[Any] = []
    for view in photo_views(pixels, int(backbone.input.shape[1])):
        outputs = backbone(view)
        maps += outputs if isinstance(outputs, list) else [outputs]
    return keras.Model(pixels, maps)


def _head_gradient(head: keras.Model, features: np.ndarray, class_index: int) -> np.ndarray:
    """Return the gradient of a logit by the features, float32 array of shape (width,)."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        values = tf.convert_to_tensor(features[None])
        with tf.GradientTape() as tape:
            tape.watch(values)
            logit = head(values, training=False)[0, class_index]
        gradient = tape.gradient(logit, values)
    elif backend == "jax":
        import jax

        gradient = jax.grad(lambda values: head(values, training=False)[0, class_index])(
            features[None]
        )
    else:
        raise Failure(f"--explain: Keras runs on {backend}; use tensorflow or jax")
    return np.asarray(gradient, np.float32)[0]


def draw_heat_map(pixels: np.ndarray, heat: np.ndarray) -> Image.Image:
    """Draw the evidence for a label in colours over a photo.

    Args:
        pixels: A photo as the network gets it, uint8 array of shape (size, size, channels).
        heat: Result of `heat_map`; negative values are not drawn.
    """
    evidence = np.maximum(heat, 0)
    strength = evidence / max(float(evidence.max()), np.finfo(np.float32).tiny)
    colours = mpl.colormaps["turbo"](strength)[..., :3] * 255
    opacity = MAX_OPACITY * strength[..., None]
    return Image.fromarray(((1 - opacity) * pixels[..., :3] + opacity * colours).astype(np.uint8))


def draw_explanation(predictor: Predictor, pixels: np.ndarray, label: str) -> bytes:
    """Draw a photo beside the same photo with the evidence for a label in colours.

    Args:
        predictor: The network.
        pixels: A photo as the network gets it, uint8 array of shape (size, size, channels).
        label: The label.

    Returns:
        A JPEG file.
    """
    head = predictor.network.get_layer("head")
    class_index = predictor.labels.index(label)
    heat = heat_map(predictor.feature_network, head, pixels, class_index)
    heat_picture = np.asarray(draw_heat_map(pixels, heat))
    picture = Image.fromarray(np.hstack([pixels[..., :3], heat_picture]))
    scale = -(-MIN_SIDE_PIXELS // len(pixels))
    picture = picture.resize((picture.width * scale, picture.height * scale))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()
