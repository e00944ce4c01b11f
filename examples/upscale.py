#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""upscale.py INPUT OUTPUT.mkv [PROPERTY=VALUE ...]

Enlarges the video of a file with flashvsr, from Python. Sound is left out: see upscale.cpp for
a program that keeps it. Properties are the element's: upscale.py in.mp4 out.mkv scale=2 color-fix=wavelet
"""
import pathlib
import sys

import gi

gi.require_version('Gst', '1.0')
from gi.repository import GLib, Gst  # noqa: E402


def prefer_software_decoders():
    """Decoders in hardware leave pictures in memory of their own: they are for what nothing else decodes."""
    kind = Gst.ELEMENT_FACTORY_TYPE_DECODER
    decoders = Gst.ElementFactory.list_get_elements(kind, Gst.Rank.MARGINAL)
    hardware = [d for d in decoders if d.list_is_type(Gst.ELEMENT_FACTORY_TYPE_HARDWARE)]
    for decoder in hardware:
        sinks = [t.get_caps() for t in decoder.get_static_pad_templates() if t.direction == Gst.PadDirection.SINK]
        if any(d.can_sink_any_caps(caps) for d in decoders if d not in hardware for caps in sinks):
            decoder.set_rank(Gst.Rank.NONE)


def main(source, target, settings):
    Gst.init(None)
    prefer_software_decoders()
    pipeline = Gst.parse_launch(
        'uridecodebin name=in ! video/x-raw ! videoconvert ! flashvsr name=filter '
        '! videoconvert ! x264enc ! h264parse ! matroskamux ! filesink name=out')
    pipeline.get_by_name('in').set_property('uri', pathlib.Path(source).resolve().as_uri())
    pipeline.get_by_name('out').set_property('location', target)
    element = pipeline.get_by_name('filter')
    for setting in settings:
        name, _, value = setting.partition('=')
        Gst.util_set_object_arg(element, name, value)

    loop = GLib.MainLoop()
    failures = []

    def on_message(_bus, message):
        if message.type == Gst.MessageType.EOS:
            loop.quit()
        elif message.type == Gst.MessageType.ERROR:
            failures.append(message.parse_error()[0].message)
            loop.quit()
        elif message.type == Gst.MessageType.PROGRESS:
            print(message.parse_progress()[2])

    def report():
        stats = element.get_property('stats')
        print(f"{stats.get_value('out-frames')} frames, {stats.get_value('fps'):.2f}/s")
        return True

    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect('message', on_message)
    GLib.timeout_add_seconds(2, report)
    try:
        pipeline.set_state(Gst.State.PLAYING)
        loop.run()
        report()
    finally:
        pipeline.set_state(Gst.State.NULL)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == '__main__':
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
