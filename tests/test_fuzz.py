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

ONCE = [('audio files', (b'none', '.raw', 'file')), ('audio files', (b'RIFF', '.raw', 'info')),
    ('tables', (b'filename\n'+b'x'*300+b'.wav\n', 'files')), ('tables', (b'filename\nloop.wav\n', 'files')), ('tables', (b'filename\n\0\n', 'files')),
    ('statistics files', ('npz bomb', 'as it is')), ('statistics files', ('npz of a huge shape', '.npz')),
    ('recipes', (b'{"lr":'+b'['*100000, '.json')), ('recipes', (b'{"way_options":{"x":{"use":[]}},"ways":["global"]}', '.json')), ('recipes', (b'{"arch":"small","arch_options":{"width":10000000}}', '.json')),
    ('audio caches', ([(12304,b'\xff\xff')], False)), ('audio caches', ([(4122,bytes(16))], False)), ('audio caches', ([(44,b'\x7f'), (24576,bytes(2))], False))]

@pytest.mark.parametrize('k', range(len(ONCE)))
def test_what_once_broke_is_a_clear_error(k, tmp_path):
    what,x = ONCE[k]
    assert fuzzing.targets[what][1](x, tmp_path) in ('ValueError','TypeError','OSError')

@pytest.mark.parametrize('name', ['flac of 1000000000 samples','flac of 2147483648 samples','flac of 68719476735 samples','mp3 of many frames','wav at 1 Hz'])
def test_a_header_that_promises_far_too_much_costs_no_memory(name, tmp_path):
    if name not in fuzzing.liars(): pytest.skip('this libsndfile writes no MP3')
    b,suffix = fuzzing.liars()[name]
    assert fuzzing._audio((b,suffix,'block'), tmp_path)=='ValueError'
    if 'wav' not in name: assert fuzzing._audio((b,suffix,'file'), tmp_path)=='ValueError'

def test_an_error_of_npz_names_the_file(tmp_path):
    "Also one of the operating system, of an archive whose index points nowhere"
    b = bytearray(fuzzing.stats_files()['a.npz'])
    at = b.rindex(b'PK\5\6')
    b[at+16:at+20] = b'\xff\xff\xff\x7f'
    assert fuzzing._stats((bytes(b), '.npz'), tmp_path)=='ValueError'

@pytest.mark.parametrize('name,args', [('specnorm-stats',['bad']), ('specnorm-compare',['--data','missing']), ('specnorm-drift',['no.safetensors','bad'])])
def test_a_real_process_with_bad_data_says_one_thing(name, args, tmp_path):
    d = fuzzing._command_home(tmp_path)
    before = {p for p in tmp_path.rglob('*') if p.is_file()}
    module,f = fuzzing._commands()[name].split(':')
    r = subprocess.run([sys.executable,'-c',f'import sys; from {module} import {f}; sys.exit({f}())',*args], cwd=d, capture_output=True, text=True, timeout=120,
                       env={**os.environ, 'PYTHONPATH':os.pathsep.join([str(Path(__file__).parents[1]),os.environ.get('PYTHONPATH','')])})
    assert r.returncode in (1,2) and 'Traceback' not in r.stderr and f'{name}: error: ' in r.stderr, r.stderr
    assert {p for p in tmp_path.rglob('*') if p.is_file()}==before

def test_what_is_watched_would_be_noticed(tmp_path):
    "The guard itself: an error of another kind, one that names nothing, a hang, an unpickled file, a process, a file written"
    import pickle,time
    def boom(): raise KeyError('x')
    def mute(): raise ValueError('something')
    for f in (boom, mute, lambda: time.sleep(9), lambda: pickle.loads(pickle.dumps(fuzzing.Boom('/tmp'))), lambda: subprocess.run(['true']), lambda: (tmp_path/'w').write_text('x'), lambda: bytearray(2**33)):
        with pytest.raises(fuzzing.Broken): fuzzing.tried(f, ['name'], seconds=1)
    def good(): raise ValueError('name: expected')
    assert fuzzing.tried(good, ['name'])=='ValueError' and fuzzing.tried(lambda: None, [])=='read'

@pytest.mark.parametrize('k', range(5))
def test_what_guided_input_begins_with_is_read(k, tmp_path, monkeypatch):
    "The programs of guided.py, which atheris drives where it is installed: some seeds are read, what is cut is a promised error"
    import guided
    from specnorm_fastai import specstats
    monkeypatch.setattr(specstats, '_digest', specstats._digest)
    seeds,run = guided._made[guided.TARGETS[k]](fuzzing, tmp_path)
    ends = [run(b) for b in seeds]
    assert 'read' in ends and {run(b[:len(b)//2]) for b in seeds}<={'read','ValueError','TypeError','OSError'}, ends

def test_without_atheris_its_part_is_skipped_with_a_reason(monkeypatch, capsys):
    import reliability
    monkeypatch.setitem(sys.modules, 'atheris', None)
    assert reliability.guided_by(1)[:2]==({},[]) and 'atheris: not run: atheris is not importable' in capsys.readouterr().out

def test_a_promise_broken_by_guided_input_is_told(tmp_path):
    pytest.importorskip('atheris')
    import guided
    res = guided.guide('csv tables', 3)
    assert res['tried']>20 and 'broken' not in res and res['reached'][1]>=res['reached'][0]>0, res
