"""Local features of photos: find photos that match as a whole or in part.

The features are SIFT key points (Lowe, "Distinctive Image Features from Scale-Invariant Keypoints",
IJCV 2004). A descriptor is stored as 128 bits, one per bin: whether the bin exceeds the
descriptor's median (Zhou, Li, Lu and Tian, "Scalar Quantization for Large Scale Image Search", ACM
MM 2012). So two descriptors are compared by their Hamming distance, and those of a mirrored photo
are a permutation of the bits.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from PIL import Image

# Longer side of the picture in pixels, and the largest number of key points.
PICTURE_SIDE, MAX_KEYPOINTS = 320, 600
# SIFT's thresholds on contrast and on edges; plain garments have little contrast.
CONTRAST_THRESHOLD, EDGE_THRESHOLD = 0.02, 12
OCTAVE_LAYERS = 3
BITS = 128
# A match: at most this Hamming distance, and at most this fraction of the second best one.
MAX_MATCH_BITS, MAX_DISTANCE_RATIO = 40, 0.8
# Descriptors that are compared with all others in one operation.
MATCH_BLOCK = 64
# RANSAC: largest distance in pixels of the picture, iterations, and the fewest matches that agree.
RANSAC_PIXELS, RANSAC_ITERATIONS, MIN_INLIERS = 5.0, 500, 8
# Points are stored in 1/64 pixel.
POINT_UNITS = 64

# The bits of a mirrored descriptor: of its 4 x 4 cells of 8 directions, the order of the rows and
# the sense of rotation are reversed.
_MIRRORED = np.arange(BITS).reshape(4, 4, 8)[::-1][:, :, [0, 7, 6, 5, 4, 3, 2, 1]].reshape(-1)
# The same for the byte of a cell.
_MIRRORED_BYTE = np.packbits(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, _MIRRORED[:8] % 8], axis=1
)[:, 0]


@dataclass(frozen=True)
class KeyScheme:
    """Locality-sensitive hashing of descriptors by bit sampling.

    A key is a random subset of the bits of a descriptor. More keys of fewer bits raise recall and
    lower precision.

    Attributes:
        seed: Seed of the selections; searches with other seeds miss other photos.
        count: Number of keys of a descriptor.
        bits: Bits of a key, a multiple of 8.
        keypoints: Key points of a photo that are indexed, the strongest ones; all are looked up.
    """

    seed: int
    count: int
    bits: int
    keypoints: int

    @cached_property
    def selections(self) -> list[np.ndarray]:
        """The bits of each key, in the order of the key."""
        draws = (np.random.default_rng((self.seed, n)) for n in range(self.count))
        return [draw.permutation(BITS)[: self.bits] for draw in draws]


# Two key points of one place differ in 1 of 20 bits if the copy is a plain one: 1 of 12 selections
# of 48 bits is equal. The second scheme finds copies that were filtered, too.
SEARCH_KEYS = KeyScheme(seed=0, count=4, bits=48, keypoints=128)
AUDIT_KEYS = KeyScheme(seed=1, count=8, bits=40, keypoints=256)
# For large audits, for which an index of AUDIT_KEYS would not fit into memory.
LARGE_AUDIT_KEYS = KeyScheme(seed=1, count=4, bits=48, keypoints=128)


@dataclass(frozen=True)
class LocalFeatures:
    """Key points of a photo with their descriptors, the strongest first.

    Attributes:
        size: Width and height of the picture, the longer one PICTURE_SIDE pixels.
        points: Places in pixels of the picture, (n, 2) float32.
        codes: Descriptors of 128 bits, (n, 16) uint8.
    """

    size: tuple[int, int]
    points: np.ndarray
    codes: np.ndarray

    def mirrored(self) -> "LocalFeatures":
        """Return the features of the mirrored photo."""
        cells = self.codes.reshape(-1, 4, 4)[:, ::-1].reshape(-1, BITS // 8)
        points = self.points * np.array([-1, 1], np.float32) + np.array(
            [self.size[0] - 1, 0], np.float32
        )
        return LocalFeatures(self.size, points, _MIRRORED_BYTE[cells])

    def strongest(self, count: int) -> "LocalFeatures":
        """Return at most `count` key points, the strongest ones."""
        return LocalFeatures(self.size, self.points[:count], self.codes[:count])

    def keys(self, scheme: KeyScheme = SEARCH_KEYS) -> np.ndarray:
        """Return the keys under which the descriptors are indexed.

        Args:
            scheme: How they are made.

        Returns:
            Array of shape (scheme.count, n), uint64.
        """
        bits = np.unpackbits(self.codes, axis=1)
        return np.stack([_packed_keys(bits[:, selected]) for selected in scheme.selections])

    @cached_property
    def packed(self) -> bytes:
        """Return the features as the catalogue stores them."""
        header = np.array(self.size, "<u2").tobytes()
        points = np.round(np.clip(self.points, 0, PICTURE_SIDE) * POINT_UNITS).astype("<u2")
        return header + points.tobytes() + self.codes.tobytes()


def keys_of_table(
    codes: np.ndarray, table: int, scheme: KeyScheme, is_mirrored: bool
) -> np.ndarray:
    """Return the keys of descriptors in one of the tables of a scheme.

    Args:
        codes: Descriptors, (n, 16) uint8.
        table: Number of the table.
        scheme: How keys are made.
        is_mirrored: Return the keys of the mirrored descriptors.

    Returns:
        Array of shape (n,), uint64, as a row of `LocalFeatures.keys`.
    """
    selected = scheme.selections[table]
    bits = np.unpackbits(codes, axis=1)
    return _packed_keys(bits[:, _MIRRORED[selected] if is_mirrored else selected])


def _packed_keys(bits: np.ndarray) -> np.ndarray:
    """Return numbers of given bits, the lowest first, (n,) uint64."""
    keys = np.zeros((len(bits), 8), np.uint8)
    keys[:, : bits.shape[1] // 8] = np.packbits(bits, axis=1, bitorder="little")
    return keys.view("<u8")[:, 0]


def unpack_features(packed: bytes) -> LocalFeatures:
    """Return the features that `LocalFeatures.packed` stored."""
    width, height = np.frombuffer(packed[:4], "<u2").tolist()
    count = (len(packed) - 4) // (4 + BITS // 8)
    points = np.frombuffer(packed, "<u2", 2 * count, 4).reshape(-1, 2)
    codes = np.frombuffer(packed, np.uint8, offset=4 + 4 * count).reshape(-1, BITS // 8)
    return LocalFeatures((width, height), points.astype(np.float32) / POINT_UNITS, codes)


def picture_of(image: Image.Image) -> Image.Image:
    """Return a photo with a longer side of PICTURE_SIDE pixels."""
    scale = PICTURE_SIDE / max(image.size)
    size = max(8, round(image.width * scale)), max(8, round(image.height * scale))
    if scale < 1:
        return image.resize(size, Image.Resampling.BOX, reducing_gap=None)
    return image.resize(size, Image.Resampling.BICUBIC)


def extract_features(image: Image.Image) -> LocalFeatures:
    """Extract the local features of a photo."""
    picture = picture_of(image.convert("L"))
    sift = cv2.SIFT.create(MAX_KEYPOINTS, OCTAVE_LAYERS, CONTRAST_THRESHOLD, EDGE_THRESHOLD)
    keypoints, descriptors = sift.detectAndCompute(np.asarray(picture), None)
    if descriptors is None:
        return LocalFeatures(
            picture.size, np.zeros((0, 2), np.float32), np.zeros((0, 16), np.uint8)
        )
    order = np.argsort([-keypoint.response for keypoint in keypoints], kind="stable")
    order = order[:MAX_KEYPOINTS]
    points = np.array([keypoints[i].pt for i in order], np.float32)
    descriptors = descriptors[order]
    # Sorting takes a tenth of the time of np.median.
    middle = np.sort(descriptors, axis=1)[:, BITS // 2 - 1 : BITS // 2 + 1]
    bits = descriptors > middle.mean(1, keepdims=True)
    return LocalFeatures(picture.size, points, np.packbits(bits, axis=1))


@dataclass(frozen=True)
class Placement:
    """Where one photo lies in another one.

    Attributes:
        transform: Affine transform of pixels of the first picture to those of the second one,
            (2, 3) float64.
        inliers: Number of key points that agree on it.
    """

    transform: np.ndarray
    inliers: int


def find_placement(
    first: LocalFeatures, second: LocalFeatures, mirrored: bool = False
) -> Placement | None:
    """Find where a photo lies in another one.

    Args:
        first: Features of the photo.
        second: Features of the other one.
        mirrored: Whether the photo is mirrored first.

    Returns:
        The placement that most key points agree on; None if fewer than MIN_INLIERS do.
    """
    placement = _find_placement(first.mirrored() if mirrored else first, second)
    if placement is None or not mirrored:
        return placement
    reflection = np.array([[-1, 0, first.size[0] - 1], [0, 1, 0], [0, 0, 1]], float)
    return Placement(placement.transform @ reflection, placement.inliers)


def _find_placement(first: LocalFeatures, second: LocalFeatures) -> Placement | None:
    matches = _match(first.codes, second.codes)
    if len(matches) < MIN_INLIERS:
        return None
    transform, inliers = cv2.estimateAffine2D(
        first.points[matches[:, 0]],
        second.points[matches[:, 1]],
        method=cv2.RANSAC,
        ransacReprojThreshold=RANSAC_PIXELS,
        maxIters=RANSAC_ITERATIONS,
    )
    if transform is None or inliers.sum() < MIN_INLIERS:
        return None
    return Placement(transform, int(inliers.sum()))


def _match(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the pairs of descriptors that are each other's nearest, (n, 2) int64.

    If fewer than MIN_INLIERS may be, none are returned.
    """
    if len(first) < 2 or len(second) < 2:
        return np.zeros((0, 2), np.int64)
    distances = _hamming_distances(first, second)
    nearest = distances.argmin(1)
    rows = np.flatnonzero(distances[np.arange(len(first)), nearest] <= MAX_MATCH_BITS)
    if len(rows) < MIN_INLIERS:
        return np.zeros((0, 2), np.int64)
    best, close = nearest[rows], distances[rows]
    numbers = np.arange(len(rows))
    smallest = close[numbers, best]
    close[numbers, best] = BITS
    is_clear = smallest <= MAX_DISTANCE_RATIO * close.min(1).astype(float)
    rows, best = rows[is_clear], best[is_clear]
    if len(rows) < MIN_INLIERS:
        return np.zeros((0, 2), np.int64)
    back = np.ascontiguousarray(distances[:, best].T).argmin(1)
    is_mutual = back == rows
    return np.stack([rows[is_mutual], best[is_mutual]], 1)


def _hamming_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Hamming distances of all pairs of descriptors, (n, m) uint8.

    NumPy counts the bits faster than OpenCV, and without the threads of a BLAS library, which would
    wait for each other.

    Args:
        first: Descriptors, (n, 16) uint8.
        second: Descriptors, (m, 16) uint8.
    """
    words = np.ascontiguousarray(first).view(np.uint64)
    others = np.ascontiguousarray(np.ascontiguousarray(second).view(np.uint64).T)
    distances = np.empty((len(first), len(second)), np.uint8)
    # Blocks whose differences fit in the CPU's cache.
    for start in range(0, len(first), MATCH_BLOCK):
        block, counts = words[start : start + MATCH_BLOCK], distances[start : start + MATCH_BLOCK]
        differences = block[:, :1] ^ others[0]
        np.bitwise_count(differences, out=counts)
        np.bitwise_xor(block[:, 1:], others[1], out=differences)
        counts += np.bitwise_count(differences)
    return distances
