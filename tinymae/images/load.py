"""Read one image file, as a viewer shows it: uint8 of shape (rows, cols, 3), whatever the file holds."""
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, features

from tinymae.files import never_downloaded
from tinymae.messages import message as _

MOST_MEGAPIXELS = 64            # of an image in memory: about 10 bytes for each pixel, until it is resized
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262                         # numbers of TIFF tags


def load_picture(path: Path | str) -> np.ndarray:
    """One image file, in colour, as a viewer shows it.

    Transparent parts become white. The orientation that the camera recorded (EXIF) is applied. Colours become those of sRGB:
    an ICC profile in the file (Display P3, Adobe RGB, that of a press) is applied with perceptual intent; one that is sRGB
    itself changes nothing, and without one the numbers are taken for sRGB. A profile that cannot be applied is ignored, and
    a UserWarning says so: it is damaged, it is for another kind of image, or this Pillow has no littlecms.

    Grey of more than 8 bits is scaled by its bit depth: 65535 -> 255, or 4095 -> 255 if it has 12 bits. Of colours with 16 bits
    Pillow keeps the upper 8. Floats go from 0, black, to 1, white. Other floats and integers of 32 bits do not say which
    number is white, and are refused: stretched by its own extremes, each image of a folder would be stretched differently.

    Of an animation, the first frame is read. A JPEG of more than MOST_MEGAPIXELS is read at half its width and height, unless
    it is progressive.

    Parameters
    ----------
    path : of any format that Pillow reads

    Returns
    -------
    image : ndarray uint8 (rows, cols, 3)

    Raises
    ------
    FileNotFoundError
        if there is no such file
    ValueError
        if the file is not an image, is cut short, has more than MOST_MEGAPIXELS (a JPEG: more than Pillow's limit against
        decompression bombs, 178), or holds numbers without a white; the message names the file and the reason
    """
    picture = _decode(path)
    info = picture.info
    if picture.mode == "F" or picture.mode.startswith("I"):                 # I, I;16, I;16B ...
        picture = _deep_grey(picture, path)
    elif picture.mode == "La":                                              # grey times opacity
        picture = picture.convert("LA")
    if picture.mode == "LAB":
        picture = _lab_to_srgb(picture, path)
    elif "icc_profile" in info:
        picture = _to_srgb(picture, info["icc_profile"], path)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _decode(path):
    """The file as a Pillow image, decoded to the last row, upright."""
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on and refuses from twice that: large photos are allowed, bombs are not.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                _limit(picture)
                _scale_transparency(picture)
                picture.load()
                ImageOps.exif_transpose(picture, in_place=True)
                return picture
    except FileNotFoundError:
        raise
    except Exception as error:              # decoders raise OSError, SyntaxError, struct.error, IndexError, ...
        reason = (never_downloaded(path) if Path(path).is_file() else None) or f"{type(error).__name__}: {error}"
        raise ValueError(_("{path}: cannot be read as an image ({reason})", path=path, reason=reason)) from error


def _limit(picture):
    """Have a large JPEG decoded at half its width and height. Raises a ValueError if an image stays too large."""
    width, height = picture.size
    if width * height > MOST_MEGAPIXELS * 1e6 and "progressive" not in picture.info:    # that one is decoded as a whole
        picture.draft(None, (width // 2, height // 2))          # does nothing to other formats
    if picture.width * picture.height > MOST_MEGAPIXELS * 1e6:
        raise ValueError(_("it has {width} x {height} pixels, {millions:.0f} million, expected at most {most}: "
                           "make it smaller first, or save it as a JPEG that is not progressive",
                           width=width, height=height, millions=width * height / 1000000.0, most=MOST_MEGAPIXELS))


def _scale_transparency(picture):
    """Scale the one transparent colour that a PNG may have as Pillow scales the pixels: it leaves that to us."""
    if picture.format == "PNG" and "transparency" in picture.info:
        depth, value = picture.tile[0][3], picture.info["transparency"]
        if depth in ("L;2", "L;4"):
            picture.info["transparency"] = value * (85 if depth == "L;2" else 17)       # 3 * 85 = 15 * 17 = 255
        elif depth == "RGB;16B":
            picture.info["transparency"] = tuple(part >> 8 for part in value)


def _deep_grey(picture, path):
    """A grey image with more than 8 bits, as a Pillow image with 8."""
    tags = getattr(picture, "tag_v2", {})                       # of a TIFF
    values = np.asarray(picture)
    if picture.mode == "F":
        if not np.isfinite(values).all():
            raise ValueError(_("{path}: float image with values that are not finite; expected 0 (black) to 1 (white)",
                               path=path))
        if values.min() < 0 or values.max() > 1:
            raise ValueError(_("{path}: float image with values from {least:g} to {most:g}; expected 0 (black) to 1 (white): "
                               "scale all your images in the same way first", path=path, least=values.min(), most=values.max()))
        values = values * 255                                   # our own array: in place from here
        np.rint(values, out=values)
    else:
        if picture.mode == "I" and picture.format not in ("PPM", "PNG"):    # these two have 16 bits at most
            raise ValueError(_("{path}: integers of 32 bits, or with a sign, from {least} to {most}; expected 8 or 16 bits, "
                               "where the largest number is white: scale all your images in the same way first",
                               path=path, least=values.min(), most=values.max()))
        white = 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
        transparent = values == picture.info.get("transparency", -1)        # PNG: this grey is transparent
        values = values.astype(np.uint32)                       # likewise
        values *= 255
        values += white // 2                                    # rounds
        values //= white
        values[transparent] = 255
    if tags.get(PHOTOMETRIC) == 0:                              # 0 is white; in images of 8 bits Pillow has seen to it
        np.subtract(255, values, out=values)
    return Image.fromarray(values.astype(np.uint8))


def _lab_to_srgb(picture, path):
    """CIE L*a*b*, which needs no profile: the numbers are colours by themselves."""
    if not features.check("littlecms2"):
        raise ValueError(_("{path}: an image in CIE L*a*b*; expected a Pillow with littlecms (ImageCms) to read it: pip "
                           "install pillow brings one, or save the image as RGB", path=path))
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB", flags=ImageCms.Flags.HIGHRESPRECALC)
    return ImageCms.applyTransform(picture, transform)


def _to_srgb(picture, profile, path):
    """The image from the colours of its ICC profile (bytes; None if Pillow could not read them) to sRGB, opacity unchanged."""
    grey = picture.mode in ("1", "L", "LA")
    try:
        source, space = _open_profile(profile)
        mode = "L" if grey and space == "GRAY" else "CMYK" if picture.mode == "CMYK" else "RGB"
        if space != ("GRAY" if mode == "L" else mode):
            raise ValueError(_("it is for {space!r} images, this one is {mode!r}", space=space, mode=picture.mode))
        exact = ImageCms.Flags.NOOPTIMIZE if mode == "L" else 0         # dark greys would be up to 9 off; slow, but for 256
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", flags=exact)
    except (ValueError, OSError, ImageCms.PyCMSError) as reason:
        warnings.warn(_("{path}: its colour profile is ignored, so its colours may be wrong ({reason})",
                        path=path, reason=reason), stacklevel=3)
        return picture
    lattice = np.moveaxis(np.indices((18, 18, 18), np.uint8) * np.uint8(15), 0, -1).reshape(18, -1, 3)
    colours = Image.fromarray(lattice).convert(mode)            # as the profile sees them, and as sRGB does
    change = np.asarray(ImageCms.applyTransform(colours, transform)) - np.asarray(colours.convert("RGB"), np.int16)
    if np.abs(change).max() <= 1:                               # the profile is sRGB, whatever its name
        return picture
    opacity = None
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")                       # also of a palette, and of one colour that is transparent
        opacity = picture.getchannel("A")
    if picture.mode != mode:
        picture = picture.convert(mode)
    if mode == "RGB":                                           # Pillow maps no RGB file into memory: it may be written to
        ImageCms.applyTransform(picture, transform, inPlace=True)
    elif mode == "L":
        greys = ImageCms.applyTransform(Image.fromarray(np.arange(256, dtype=np.uint8)[None]), transform)
        picture = picture.point(list(greys.getchannel("G").tobytes()))
    else:
        picture = ImageCms.applyTransform(picture, transform)
    if opacity is not None:
        picture.putalpha(opacity)
    return picture


def _open_profile(profile):
    """(the profile, its colour space). Raises a ValueError that says why there is none."""
    if not features.check("littlecms2"):
        raise ValueError(_("this Pillow was built without littlecms, for ImageCms: pip install pillow brings one with it"))
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        return source, source.profile.xcolor_space.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(_("it is damaged")) from error
