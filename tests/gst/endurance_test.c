/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Hours of stream time at full speed: every frame comes out, memory stays flat. FLASHVSR_HOURS
 * (of 25 frames/s; default a quarter) says how many. */
#include <stdio.h>
#include <unistd.h>

#include "support.h"

static guint64 resident_bytes(void) {
  unsigned long pages = 0;
  FILE* file = fopen("/proc/self/statm", "r");
  fail_unless(file && fscanf(file, "%*u %lu", &pages) == 1);
  fclose(file);
  return (guint64)pages * (guint64)sysconf(_SC_PAGESIZE);
}

static guint64 count, expected_index;

static GstFlowReturn take(GstPad* pad, GstObject* parent, GstBuffer* buffer) {
  (void)pad, (void)parent;
  ++count;
  fail_unless_equals_uint64(index_of(buffer), expected_index++);
  gst_buffer_unref(buffer);
  return GST_FLOW_OK;
}

GST_START_TEST(endurance) {
  const gchar* text = g_getenv("FLASHVSR_HOURS");
  const guint64 frames = (guint64)((text ? g_ascii_strtod(text, NULL) : 0.25) * 3600 * 25);
  const guint64 drain_every = 9973;
  /* As a file's source: a harness says that it is live, and a loaded machine would then pass chunks by. */
  GstHarness* h = make_harness("scale=1.5 overload-policy=wait");
  gst_pad_set_chain_function(h->sinkpad, take);
  guint64 early = 0;
  for (guint64 i = 0; i < frames; ++i) {
    fail_unless_equals_int(gst_harness_push(h, make_frame(i)), GST_FLOW_OK);
    if (i % drain_every == drain_every - 1) gst_harness_push_event(h, gst_event_new_gap(i * FRAME_TIME, 2 * GST_SECOND));
    if (i % 1000 == 0) { /* nobody takes the harness's events */
      GstEvent* event;
      while ((event = gst_harness_try_pull_event(h))) gst_event_unref(event);
    }
    if (i == frames / 10) early = resident_bytes();
  }
  gst_harness_push_event(h, gst_event_new_eos());
  const guint64 late = resident_bytes();
  fail_unless_equals_uint64(count, frames);
  g_print("# %" G_GUINT64_FORMAT " frames; %" G_GUINT64_FORMAT " KiB after a tenth, %" G_GUINT64_FORMAT " KiB at the end\n", frames,
          early / 1024, late / 1024);
  fail_unless(late < early + (4 << 20), "memory grew from %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT, early, late);
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

int main(int argc, char** argv) {
  gst_check_init(&argc, &argv);
  Suite* suite = suite_create("flashvsr endurance");
  TCase* tcase = tcase_create("endurance");
  suite_add_tcase(suite, tcase);
  tcase_set_timeout(tcase, 3600);
  tcase_add_test(tcase, endurance);
  return run_suite(suite);
}
