# SPDX-License-Identifier: LGPL-2.1-or-later
"""count_cases.py MESON_LOGS_DIR

Prints what failed and, as the last line, "N passed, N failed, N skipped": cases, not programs,
from the runners' own reports as meson collects them (testlog.junit.xml holds every GoogleTest case
and every TAP line; a plain program is one case). testlog.json, one record for each program, tells
what reports cannot: a program that hung, or died before or after its last case; that is one
failed case more. Exit status 0 only when nothing failed and at least one case passed.
"""
import collections
import json
import os
import re
import sys
import xml.etree.ElementTree as ET

BAD = ('FAIL', 'ERROR', 'TIMEOUT', 'INTERRUPT', 'UNEXPECTEDPASS')


def verdict_of(case):
    if case.find('failure') is not None or case.find('error') is not None:
        return 'failed'
    if case.find('skipped') is not None or case.get('status') == 'notrun':
        return 'skipped'
    return 'passed'


def program_of(suite, case, programs):
    """The program a case belongs to. Suites are called project (plain program, named by the case),
    project.program (TAP) or project.program.suite (GoogleTest)."""
    tail = suite.partition('.')[2]
    if not tail:
        return case.get('name')
    fitting = [p for p in programs if tail == p or tail.startswith(p + '.')]
    return max(fitting, key=len, default=None)


def main(logs):
    results = {}
    with open(os.path.join(logs, 'testlog.json')) as lines:
        for record in map(json.loads, lines):
            if record['name'] in results:
                print(f"two programs are called {record['name']}: their reports overwrite each other")
                return 1
            results[record['name']] = record['result']

    with open(os.path.join(logs, 'testlog.junit.xml'), encoding='utf-8', errors='replace') as file:
        report = re.sub('[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]', '?', file.read())  # what tests print

    counts = {name: collections.Counter() for name in results}
    failed = []
    for suite in ET.fromstring(report.encode()).iter('testsuite'):
        for case in suite.findall('testcase'):
            name = program_of(suite.get('name'), case, results)
            if name is None:
                print(f"a case of no known program: {suite.get('name')}")
                return 1
            verdict = verdict_of(case)
            is_plain = '.' not in suite.get('name')
            if is_plain and results[name] in BAD:
                verdict = 'failed'  # meson writes a hung plain program without any mark
            counts[name][verdict] += 1
            if verdict == 'failed':
                failed.append(name if is_plain else f"{name}: {case.get('name')}")

    for name, result in results.items():
        if result in BAD and counts[name]['failed'] == 0:
            counts[name]['failed'] += 1
            failed.append(f'{name}: {result} outside its cases')

    total = sum(counts.values(), collections.Counter())
    for line in failed:
        print('failed:', line)
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 0 if total['failed'] == 0 and total['passed'] > 0 else 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1]))
