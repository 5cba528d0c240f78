"""A long result and its file: written section by section, and taken up where the work stopped.

outputs/NAME-002-part.wav grows, and NAME-002-part.json says what was made with which settings and cells, and how many
samples are whole. At the end, both lose the "-part". An interrupt, or the end of the process, costs at most the section
in the making: the same settings and cells find the part again.
"""

import contextlib
import ctypes
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from support import pipeline
from support.desk import saving
from support.desk.truth import FIRST_SECTION
from support.sound.sections import KEPT, begun, go_on

LARGEST = 2**32 - 2**16  # bytes of a wav; a larger sound is written as RF64


class Stream:
    """A long result in the making; iterating makes what is missing.

    Parameters
    ----------
    result : pipeline.Result
        Its first section.
    used : dict
        What the cells used, see truth.describe.
    recordings_of : function or None
        From the number of a draw and a section to the recordings; None: those of the settings.
    parts_of_run : see pipeline.run
    """

    def __init__(self, result, *, used, folder="outputs", recordings_of=None, **parts_of_run):
        self.settings, self.parts_of_run, self.recordings_of = result.settings.of_run(0), parts_of_run, recordings_of
        others = [each for each in used["not_in_settings"] if each != FIRST_SECTION]
        report = {"settings": self.settings.plain(), "used": used | {"not_in_settings": others}}
        self.report, self.done = json.loads(json.dumps(report)), 0
        self.stem, steps = result.long[0] if result.long else None, (len(result.history), len(result.refinement))
        if self.stem and result.long[1] == steps and self._file(".json").is_file():
            self.done = self.settings.length_of_long  # nothing is made again
        else:
            self.stem = self._found(Path(folder)) or self._begun(result, Path(folder))
        result.long = (self.stem, steps)

    @property
    def sound(self):
        """The path of the sound, which is still a part or whole."""
        part = self._file("-part.wav")
        return part if part.exists() else self._file(".wav")

    @property
    def seconds(self):
        """How many seconds are there, and how many there will be."""
        return self.done / self.settings.sample_rate, self.settings.length_of_long / self.settings.sample_rate

    def __iter__(self) -> Iterator[float]:
        """Make the sections that are missing; yield how many seconds are new."""
        if self._file(".json").exists():
            return
        with soundfile.SoundFile(self.sound) as file:
            file.seek(max(0, self.done - round(KEPT * file.samplerate)))
            before = file.read(self.done - file.tell(), dtype="float32").T
        rate, length = self.settings.sample_rate, self.settings.length_of_long
        for place, samples in go_on(self._made, before, self.done, length=length, sample_rate=rate):
            seconds = self.seconds[0]
            with saving.uninterrupted():
                self._write(place, samples)
            yield self.seconds[0] - seconds
        with saving.uninterrupted():
            self._finish()

    def _made(self, section):
        recordings = self.recordings_of and self.recordings_of(0, section)
        result = pipeline.run(self.settings, recordings, section=section, **self.parts_of_run)
        samples = result.samples.cpu().numpy()
        del result
        with contextlib.suppress(OSError, AttributeError, TypeError):  # only glibc has this function
            # glibc keeps the memory of a section in pieces, 0.3 GB, and the next section would begin on top of it.
            ctypes.CDLL(None).malloc_trim(0)
        return samples

    def _file(self, ending):
        return self.stem.with_name(self.stem.name + ending)

    def _found(self, folder):
        # The stem of a part that was begun with the same settings and cells.
        for path in saving.of_number(folder, self.settings.outname, "-part.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found = json.loads(path.read_text())
                self.done = found.pop("samples")
                if _alike(found, self.report) and soundfile.info(path.with_suffix(".wav")).frames >= self.done:
                    self.report = found
                    return path.with_name(path.name.removesuffix("-part.json"))
        return None

    def _begun(self, result, folder):
        samples, self.report["losses"] = begun(result.samples.cpu().numpy()), result.history + result.refinement
        self.stem = saving.new_stem(folder, self.settings.outname)
        channels = 1 if samples.ndim == 1 else len(samples)
        is_large = 2 * channels * self.settings.length_of_long > LARGEST
        how = dict(format="RF64" if is_large else "WAV", subtype="PCM_16")
        with soundfile.SoundFile(self._file("-part.wav"), "x", self.settings.sample_rate, channels, **how):
            pass
        self._write(0, samples)
        return self.stem

    def _write(self, place, samples):
        with soundfile.SoundFile(self.sound, "r+") as file:
            file.seek(place)
            file.write((samples.T * 2**15).astype(np.int16))
        self.done = place + samples.shape[-1]
        self._save("-part.json", self.report | {"samples": self.done})

    def _finish(self):
        peak = power = 0.0
        with soundfile.SoundFile(self.sound) as file:
            for block in file.blocks(2**20, dtype="float32"):
                peak, power = max(peak, float(np.abs(block).max())), power + np.square(block, dtype=np.float64).sum()
            level = saving.decibels(peak, np.sqrt(power / file.frames / file.channels))
        os.replace(self.sound, self._file(".wav"))
        self._save(".json", {"versions": saving.versions(), "level": level} | self.report)
        self._file("-part.json").unlink()

    def _save(self, ending, report):
        text = json.dumps(report, indent=1) + "\n"
        saving.write_whole(self._file(ending), lambda path: path.write_text(text))


def _alike(report, other):  # but for the losses, and the distance, whose last digits another machine changes
    used = [each["used"] | {"style_distance": None} for each in (report, other)]
    return report["settings"] == other["settings"] and used[0] == used[1]
