"fastaudio's names: each is here with its arguments or on the page with its replacement, and its own tests pass"
import inspect,json,re,subprocess,sys,tarfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fasttransform.transform import Transform

import specnorm_fastai.all as ours
from specnorm_fastai.core import AudioSpectrogram,AudioTensor
from specnorm_fastai.fastaudio import (apply_transform,auto_batch,config_from_func,create_sin_wave,get_usable_kwargs,show_audio_signal,
                                       show_spectrogram,skip_if_ci,tar_extract_at_filename,test_audio_tensor,warn_unused)
from specnorm_fastai.features import AudioConfig,AudioToSpec

root = Path(__file__).parents[1]
sys.path.insert(0, str(root/'tools'))
import fastaudio_suite as suite

API = json.loads((root/'tests'/'fastaudio_api.json').read_text())

# ---- the list of names

def page_table():
    "name -> (what stands in the second column, what is different), of all tables on the page"
    res = {}
    for c in json.loads((root/'nbs'/'57_fastaudio.ipynb').read_text())['cells']:
        if c['cell_type']!='markdown': continue
        for line in ''.join(c['source']).splitlines():
            cells = [o.strip() for o in line.strip().strip('|').split('|')] if line.startswith('| `') else []
            for n in re.findall('`([^`]+)`', cells[0]) if cells else ():
                assert n not in res, f'{n} stands twice in the tables'
                assert len(cells)==3, line
                res[n] = cells[1:]
    return res

TABLE = page_table()
NAMES = [(m,n,o) for m,d in API['modules'].items() for n,o in d.items()]
IDS = [f'{m}.{n}' for m,n,_ in NAMES]

def given(f):
    "Parameters that may be given by position, name -> default; `self` is gone"
    return {k:p.default for k,p in inspect.signature(f).parameters.items()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and k not in ('self','cls')}

def check_params(what, theirs, f, different):
    "Ours take theirs in the same order with the same defaults, unless the page names a parameter among the differences"
    ps = given(f); theirs = [(k,d) for k,d in theirs if not k.startswith('*')]
    assert list(ps)[:len(theirs)]==[k for k,_ in theirs], f'{what}: expected {[k for k,_ in theirs]} first, got {list(ps)}'
    for k,d in theirs:
        if d is not None and f'`{k}`' not in different: assert ps[k]==eval(d, vars(ours)), f'{what}: {k} is {ps[k]!r}, was {d}'

@pytest.mark.parametrize('mod,name,o', NAMES, ids=IDS)
def test_each_public_name_is_here_with_its_arguments_or_on_the_page_with_its_replacement(mod, name, o):
    assert name in TABLE, f'{mod}.{name} is not in the tables of nbs/57_fastaudio.ipynb'
    here,different = TABLE[name]
    if here!='same':
        assert here and different, f'{name}: the page gives no replacement or no reason'
        return
    assert hasattr(ours, name), f'{name} is not in specnorm_fastai.all'
    f = getattr(ours, name)
    if o['kind'] in ('class','function') and 'params' in o: check_params(name, o['params'], f, different)
    for k,m in o.get('members', {}).items():
        if k in ('encodes','decodes','before_call'): continue  # fastai's machinery, called by none
        assert hasattr(f, k), f'{name}.{k} is missing'
        if m['kind']=='method': check_params(f'{name}.{k}', m['params'], getattr(f, k), different)

def test_names_of_other_packages_come_along_or_are_on_the_page():
    for n in API['leaked']:
        assert n in TABLE, f'{n} is not in the tables of nbs/57_fastaudio.ipynb'
        if TABLE[n][0]=='same': assert hasattr(ours, n), f'{n} is not in specnorm_fastai.all'
        else: assert all(TABLE[n]), n

def test_names_that_came_along_are_the_objects_of_their_packages():
    import fastai.vision.all as v
    from dataclasses import is_dataclass,make_dataclass
    for n in API['leaked']:
        if TABLE[n][0]=='same' and hasattr(v, n): assert getattr(ours, n) is getattr(v, n), n
    assert (ours.signature,ours.is_dataclass,ours.make_dataclass)==(inspect.signature,is_dataclass,make_dataclass)

def test_the_page_names_nothing_that_fastaudio_had_not():
    assert set(TABLE)=={n for _,n,_ in NAMES}|set(API['leaked'])

def test_names_are_found_with_both_star_imports_and_heavy_packages_are_not_loaded():
    code = ('from fastai.vision.all import *\nimport sys; before = set(sys.modules)\nfrom specnorm_fastai.all import *\n'
            'new = {m.partition(".")[0] for m in set(sys.modules)-before}\n'
            'print(sorted(new & {"torchaudio","numba","IPython","librosa","soundfile"}))\n'
            'Pipeline,Transform,RandTransform,AudioBlock,nn,F,np,plt,random,math,torch,URLs,Path,partial')
    r = subprocess.run([sys.executable,'-c',code], capture_output=True, text=True)
    assert r.returncode==0, r.stderr[-2000:]
    assert r.stdout.strip()=='[]'

# ---- its own tests

def test_imports_of_fastaudio_are_renamed():
    t = ('import fastaudio\nfrom fastaudio.all import (\n    A,\n)\n'
         'from fastaudio.augment.functional import region_mask\nfrom fastaudio.core.spectrogram import x\n'
         'from fastaudio.util import y\nfrom fastaudio.ci import z\npatch("fastaudio.augment.functional.region_mask")\n'
         '# https://github.com/fastaudio/fastaudio/issues/95\n'
         'from torchaudio.transforms import MelSpectrogram\n')
    assert suite.rename(t)==(
         'import specnorm_fastai as fastaudio\nfrom specnorm_fastai.all import (\n    A,\n)\n'
         'from specnorm_fastai.augment import region_mask\nfrom specnorm_fastai.all import x\n'
         'from specnorm_fastai.all import y\nfrom specnorm_fastai.all import z\npatch("specnorm_fastai.augment.region_mask")\n'
         '# https://github.com/fastaudio/fastaudio/issues/95\n'
         'from torchaudio.transforms import MelSpectrogram\n')

def test_fastaudios_own_suite(tmp_path):
    pytest.importorskip('torchaudio', reason="fastaudio's tests import torchaudio", exc_type=Exception)
    try: sdist = suite.fetch('fastaudio-1.0.2.tar.gz', tmp_path)
    except suite.Unreachable as e: pytest.skip(str(e))
    res = suite.run(sdist)
    assert len(res)>=60, sorted(res)
    assert not suite.failures(res), '\n' + suite.table(suite.failures(res))

def test_the_list_of_names_is_what_the_wheel_holds(tmp_path):
    try: wheel = suite.fetch(API['of'], tmp_path)
    except suite.Unreachable as e: pytest.skip(str(e))
    assert suite.api(wheel)==API

def test_an_archive_that_is_not_the_one_is_refused(tmp_path):
    f = tmp_path/'x.tar.gz'; f.write_bytes(b'x')
    with pytest.raises(ValueError, match='expected fastaudio-1.0.2.tar.gz with sha256'): suite.check(f, 'fastaudio-1.0.2.tar.gz')

# ---- helpers

@pytest.mark.parametrize('seconds,sr,freq', [(5,16000,400),(0.5,44100,1000),(0.3,8000,50)])
def test_sine_has_its_length_and_frequency(seconds, sr, freq):
    x,rate = create_sin_wave(seconds, sr, freq)
    assert rate==sr and x.dtype==torch.float32 and x.shape==(round(seconds*sr),)
    assert torch.fft.rfft(x).abs().argmax().item()*sr/len(x)==pytest.approx(freq, abs=sr/len(x))
    want = torch.from_numpy(np.sin(2*np.pi*freq*np.arange(len(x))/sr))
    assert (x.double()-want).abs().max()<1e-7  # half a unit of float32 near 1 is 6e-8

def test_test_audio_tensor_is_no_test_for_pytest(tmp_path):
    assert test_audio_tensor.__test__ is False
    x = test_audio_tensor(seconds=1, sr=8000, channels=3)
    assert (x.shape,x.sr)==((3,8000),8000) and torch.equal(x[0], x[2])

def test_apply_transform_leaves_its_input_and_acts_as_in_training():
    x = test_audio_tensor()
    before = x.clone()
    def bad(o): o.mul_(0); return o
    inp,out = apply_transform(bad, x)
    assert torch.equal(x, before) and torch.equal(inp, before) and (out==0).all() and inp.sr==16000
    seen = []
    class T(ours.RandTransform):
        def before_call(self, b, split_idx): seen.append(split_idx); self.do = True
        def encodes(self, o:AudioTensor): return o
    apply_transform(T(), x)
    assert seen==[0]

def test_auto_batch_serves_items_and_batches_and_keeps_what_they_know():
    calls = []
    class T(Transform):
        @auto_batch(2)
        def encodes(self, x:AudioTensor): calls.append(x.ndim); return x*2
        @auto_batch(3)
        def encodes(self, x:AudioSpectrogram): calls.append(x.ndim); return x+1
    x = AudioTensor(torch.ones(2,8), sr=8000, lengths=5, fn='a.wav')
    y = T()(x)
    assert type(y) is AudioTensor and y.eq(2).all() and (y.sr,int(y.lengths),y.fn)==(8000,5,'a.wav')
    yb = T()(torch.stack([x,x]))
    assert yb.shape==(2,2,8) and yb.lengths.tolist()==[5,5]
    sg = AudioSpectrogram.create(torch.zeros(1,4,6), settings=dict(sr=8000), lengths=3, silent=torch.arange(6)<1)
    z = T()(sg)
    assert z.eq(1).all() and z.settings==sg.settings and int(z.lengths)==3 and z.silent.tolist()==sg.silent.tolist()
    assert calls==[3,3,4]
    plain = torch.ones(8)
    assert T()(plain) is plain  # no type of ours: untouched

def test_usable_arguments():
    def f(a, b=2, *args, c, d=4, **kwargs): pass
    assert get_usable_kwargs(f, {})=={'b':2,'d':4}
    assert get_usable_kwargs(f, dict(a=1, c=None, kwargs=3, args=1, e=5))=={'a':1,'b':2,'c':None,'d':4}
    assert get_usable_kwargs(f, dict(a=1, b=3), ['b'])=={'a':1,'d':4}

def test_unused_arguments_are_warned_of_one_by_one():
    with pytest.warns(UserWarning) as ws: warn_unused(dict(a=1, b=2, c=3), dict(b=2))
    assert [str(w.message).split()[0] for w in ws]==['a','c'] and all(w.filename==__file__ for w in ws)

def test_config_of_a_function():
    def f(a, b=2, c={'x':1}, *args, d=None, **kwargs): pass
    C = config_from_func(f, 'C', b=3, extra=[1])
    c = C(0)
    assert (c.a,c.b,c.c,c.d,c.extra,C.__name__)==(0,3,{'x':1},None,[1],'C')
    c.c['x'] = 9; c.extra.append(2)
    assert C(0).c=={'x':1} and C(0).extra==[1]
    with pytest.raises(TypeError): C()
    assert AudioToSpec.from_cfg(config_from_func(AudioConfig.Voice, 'V', n_mels=40)())(test_audio_tensor()).shape[1]==40

def test_drawing_functions_draw_on_the_axis_that_is_given():
    x = test_audio_tensor(channels=2); sg = AudioToSpec.from_cfg(AudioConfig.Voice())(x)
    for f,o in ((show_audio_signal,x),(show_spectrogram,sg)):
        _,(a,b) = plt.subplots(1, 2)
        assert f(o, ctx=a, title='t') is a and f(o, ctx=b, ax=a) is a and f(o, ax=b) is b and not isinstance(f(o), np.ndarray)

def _tar(path, *members, mode='w:gz'):
    with tarfile.open(path, mode) as f:
        for name,kw in members:
            i = tarfile.TarInfo(name)
            for k,v in kw.items(): setattr(i, k, v)
            f.addfile(i)
    return path

@pytest.mark.parametrize('name,mode,folder', [('a.tgz','w:gz','a'),('a.tar.gz','w:gz','a'),('b.1.tar','w','b.1'),('c.tar.xz','w:xz','c')])
def test_archives_are_unpacked_into_a_folder_of_their_name(tmp_path, name, mode, folder):
    got = tar_extract_at_filename(str(_tar(tmp_path/name, ('x/y.wav',{}), mode=mode)), str(tmp_path/'out'))
    assert got==tmp_path/'out'/folder and (got/'x'/'y.wav').exists()

@pytest.mark.parametrize('name,kw', [('../x',{}),('x/../../x',{}),('link',dict(type=tarfile.SYMTYPE, linkname='/etc/passwd')),
                                     ('link',dict(type=tarfile.SYMTYPE, linkname='../../x')),
                                     ('hard',dict(type=tarfile.LNKTYPE, linkname='../../x')),('dev',dict(type=tarfile.CHRTYPE))])
def test_archives_that_reach_outside_are_refused(tmp_path, name, kw):
    with pytest.raises(ValueError, match='inside of'): tar_extract_at_filename(_tar(tmp_path/'a.tgz', (name,kw)), tmp_path/'deep'/'out')
    assert {p.name for p in tmp_path.rglob('*') if not p.is_dir()}=={'a.tgz'}

@pytest.mark.parametrize('ci,ran', [(None,True),('',True),('false',True),('true',False),('True',False)])
def test_functions_are_skipped_under_ci(monkeypatch, ci, ran):
    monkeypatch.delenv('CI', raising=False)
    if ci is not None: monkeypatch.setenv('CI', ci)
    f = skip_if_ci(lambda: 'ran')
    assert f()==('ran' if ran else None) and f(lambda: 'alt')==('ran' if ran else 'alt')
