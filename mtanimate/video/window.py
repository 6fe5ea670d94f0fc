"""A window that shows frames, by the tkinter of the standard library."""

from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from mtanimate.errors import InputError
from mtanimate.video.streams import StreamClosed

_TITLE = "mtanimate - Esc: end, r: this pose is rest"


class Window:
    """A window that shows frames, for the main thread only, as tkinter requires. Use it in a `with` statement.

    Raises:
        InputError: there is no tkinter, or no display.
    """

    def __init__(self) -> None:
        try:
            import tkinter

            from PIL import ImageTk
        except ImportError as error:
            raise InputError(
                f"--out window: this Python has no tkinter ({error}): install python3-tk and python3-pil.imagetk, "
                "or write a file"
            ) from error
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise InputError(
                f"--out window: no window can be opened ({error}): write a file, or give a display"
            ) from error
        self._new_photo = ImageTk.PhotoImage
        self._photo: Any = None
        self._closed = self._asked = False
        self._root.title(_TITLE)
        self._root.resizable(False, False)
        self._root.protocol("WM_DELETE_WINDOW", self._end)
        self._root.bind("<Escape>", self._end)
        self._root.bind("<KeyPress-r>", self._ask)
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()

    def write(self, frame: np.ndarray, at: float) -> None:
        """Shows a frame at once; one larger than the screen is reduced.

        Args:
            frame: uint8 RGB (H, W, 3).
            at: ignored: frames are shown when they come.

        Raises:
            StreamClosed: the window was closed.
        """
        picture = Image.fromarray(frame)
        # The window's border and the system's bars need some of the screen.
        picture.thumbnail((self._root.winfo_screenwidth(), round(0.9 * self._root.winfo_screenheight())))
        if self._photo is None:
            self._photo = self._new_photo(picture)
            self._label.configure(image=self._photo)
        else:
            self._photo.paste(picture)
        self.attend()

    def attend(self) -> None:
        """Handles key presses and events of the system; to be called often.

        Raises:
            StreamClosed: the window was closed.
        """
        if not self._closed:
            self._root.update()
        if self._closed:
            raise StreamClosed

    def reference_asked(self) -> bool:
        """Whether `r` was pressed since the last call."""
        asked, self._asked = self._asked, False
        return asked

    def __enter__(self) -> "Window":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._photo = None  # before the root: its picture lives there
        self._root.destroy()

    def _end(self, event: Any = None) -> None:
        self._closed = True

    def _ask(self, event: Any = None) -> None:
        self._asked = True
