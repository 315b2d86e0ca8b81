"""What the widgets share in Python; look.js and look.css hold what they share on the page."""

import base64
import re
from pathlib import Path

import anywidget
import torch

from course.insight import as_batch

FOLDER = Path(__file__).resolve().parent
PICTURES = FOLDER.parents[1] / "Test_Images"
SHARED_IMPORT = re.compile(r'^import \{[^}]*\} from "\.\./(\w+\.js)";\n', re.MULTILINE)


class Widget(anywidget.AnyWidget):
    """A widget in the course's look, with a still picture for places that cannot show widgets."""

    preview = ""  # its file in Test_Images

    @staticmethod
    def css(path):
        """The widget's own style sheet, after the one that all share."""
        return _read(FOLDER / "look.css") + _read(path)

    @staticmethod
    def script(path):
        """The widget's script, after the shared files that it imports: look.js, layers.js.

        anywidget loads a script as a blob, from where `import ... from "../look.js"` leads nowhere.
        So the files become one module: the imports go, and the text of the imported files comes
        first. What these export is then declared in the module itself. Two rules make this work:
        the shared files import nothing, and no two joined files use a name twice.
        """
        script = _read(path)
        shared = [_read(FOLDER / name) for name in SHARED_IMPORT.findall(script)]
        return "\n".join([*shared, SHARED_IMPORT.sub("", script)])

    def __repr__(self):
        return f"{type(self).__name__}()"

    def still_picture(self):
        """The still picture, as the bytes of a PNG file; None if there is none."""
        path = PICTURES / self.preview
        return path.read_bytes() if path.is_file() else None

    def state(self):
        """The values that the page starts with, ready for JSON: the website has no kernel."""
        all_names = set(self.trait_names(sync=True))
        inherited = set(anywidget.AnyWidget.class_trait_names(sync=True))
        names = [name for name in sorted(all_names - inherited) if not name.startswith("_")]
        return {name: _as_json(getattr(self, name)) for name in names}

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        picture = self.still_picture()
        if picture is not None:
            data["image/png"] = _as_base64(picture)
        return data, metadata


class DigitWidget(Widget):
    """A widget about a digit; when `image` is set, `_update_page` computes what the page shows."""

    @property
    def image(self):
        """The digit, as networks take it: normalised, [1, 28, 28]."""
        return self._image

    @image.setter
    def image(self, image):
        if not isinstance(image, torch.Tensor) or image.numel() != 28 * 28:
            raise ValueError(
                "this needs a picture of 28×28 pixels: a digit of a data set, or pad.picture"
            )
        self._image = as_batch(image.reshape(28, 28))[0]
        self._update_page()


def _read(path):
    return path.read_text(encoding="utf-8")


def _as_base64(data):
    return base64.b64encode(data).decode()


def _as_json(value):
    """The value of a trait; bytes, which JSON does not have, in base64."""
    return {"base64": _as_base64(value)} if isinstance(value, bytes) else value
