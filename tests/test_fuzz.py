"Bad input of every kind: an error of a promised kind that names what is wrong; no crash, no hang, no code that runs, nothing half written"
import os,subprocess,sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='limits of memory and time are set as Linux has it')
if sys.platform.startswith('linux'): import fuzzing

MANY = {'recipes':40, 'command lines':60, 'audio caches':60}

@pytest.mark.parametrize('what', list(fuzzing.targets) if sys.platform.startswith('linux') else [])
def test_bad_input_is_a_clear_error(what, tmp_path):
    ends = fuzzing.fuzz(what, tmp_path, MANY.get(what, 100))
    assert sum(ends.values())>=MANY.get(what, 100)//2 and sum(n for k,n in ends.items() if k!='read')>5, ends
