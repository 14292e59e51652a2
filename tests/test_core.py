"What a tensor knows about itself follows it; a bad file is named; pictures have units"
import copy,gc,io,pickle,subprocess,sys,warnings
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
import torch.nn.functional as F
from hypothesis import given,strategies as st
from fastai.data.all import CategoryBlock,ColReader,DataBlock,IndexSplitter
from fastai.data.load import fa_collate

from specnorm_fastai.core import AudioSpectrogram,AudioTensor,as_axes,audio_info,get_audio_files
from specnorm_fastai.data import AudioBlock
from specnorm_fastai.features import AudioConfig,AudioToSpec

NS,FNS = (5,8,12),('a.wav','b.wav','c.wav')
SETTINGS = dict(sr=8000, n_fft=6, hop_length=3, to_db=True)

def marks(kind, ns=NS, n=None, ch=2):
    "A batch whose values say which samples or frames are real"
    n = n or max(ns)
    m = (torch.arange(n)<torch.tensor(ns)[:,None]).float()
    fn = FNS if len(ns)==3 else None
    if kind=='audio': return AudioTensor(m[:,None].repeat(1,ch,1), sr=8000, lengths=ns, fn=fn)
    return AudioSpectrogram.create(m[:,None,None].repeat(1,ch,4,1), settings=SETTINGS, freqs=(0.,1.,2.,3.), lengths=ns, fn=fn)

def known(x):
    "All that a tensor knows, comparable"
    ln = None if x.lengths is None else x.lengths.tolist()
    return (x.sr, ln, x.fn) if isinstance(x, AudioTensor) else ({k:v for k,v in x.settings.items() if k!='channels_taken'}, x.freqs, ln, x.fn)

def is_honest(x):
    "Do the lengths of `marks` that were moved about say what its values say?"
    m = x.real_mask
    while m.ndim<x.ndim: m = m.unsqueeze(-2)
    return torch.equal(x.plain()>0, m.expand(x.shape))

kinds = pytest.mark.parametrize('kind', ['audio','spec'])

# ---- what a tensor knows follows it

def through_file(x): b = io.BytesIO(); pickle.dump(x, b); b.seek(0); return pickle.load(b)

KEEP = dict(
    add=lambda x:x+1, radd=lambda x:1+x, neg=lambda x:-x, self_add=lambda x:x+x, rsub=lambda x:1-x, inplace=lambda x:x.clone().mul_(2),
    abs=lambda x:x.abs(), log=lambda x:torch.log1p(x), clamp=lambda x:x.clamp(0,1), compare=lambda x:x>0, zeros_like=torch.zeros_like,
    where=lambda x:torch.where(x>0, x, 0.), masked_fill=lambda x:x.masked_fill(x>0, 2.), keyword=lambda x:torch.add(input=x, other=1),
    plain_operand=lambda x:x+torch.ones(x.shape), broadcast=lambda x:x*torch.ones(x.shape[-1]), half=lambda x:x.half(),
    double=lambda x:x.to(torch.float64), detach=lambda x:x.detach(), clone=lambda x:x.clone(), copy=copy.copy, deepcopy=copy.deepcopy,
    nested_deepcopy=lambda x:copy.deepcopy([x,{1:x}])[1][1], pickle=through_file, view_as=lambda x:x.view_as(x), whole=lambda x:x[:],
    dots=lambda x:x[...], constructed=lambda x:type(x)(x))

@kinds
@pytest.mark.parametrize('op', KEEP)
@pytest.mark.parametrize('item', [False,True])
def test_operation_keeps_what_a_tensor_knows(kind, op, item):
    x = marks(kind)[1] if item else marks(kind)
    before,y = known(x),KEEP[op](x)
    assert type(y) is type(x) and y.shape==x.shape and y is not x
    assert known(y)==before and known(x)==before

@kinds
@pytest.mark.parametrize('op', KEEP)
def test_tensor_and_derivative_share_no_dict(kind, op):
    x = marks(kind); before = known(x); y = KEEP[op](x)
    assert y.__dict__ is not x.__dict__
    y.lengths,y.fn,y.sr = torch.tensor([1,1,1]),('z',)*3,1
    assert known(x)==before

def test_setting_of_a_derivative_leaves_the_original():
    x = marks('spec'); y = x.with_settings(hop_length=7, to_db=None)
    assert (y.hop_length, x.hop_length, 'to_db' in y.settings, x.to_db)==(7, 3, False, True)
    z = copy.deepcopy(x); z.settings['hop_length'] = 9; z.lengths[0] = 1
    assert (x.hop_length, x.lengths.tolist())==(3, list(NS))

@kinds
def test_autograd_and_moving_keep_what_a_tensor_knows(kind):
    x = marks(kind); before = known(x)
    y = x.requires_grad_()*3
    assert known(y)==before and known(x.to('cpu'))==before and known(x.contiguous())==before and known(x.detach())==before
    y.sum().backward()
    assert (x.grad==3).all()

INDEX = dict(int=1, negative=-1, numpy_int=np.int64(2), tensor_int=torch.tensor(1), slice=slice(1,None), reverse_order=[2,0], empty=[],
    repeated=[1,1,0], bools=[True,False,True], mask=torch.tensor([False,True,True]), numpy_mask=np.array([True,False,False]),
    long=torch.tensor([2,1]), numpy=np.array([0,2]), int32=torch.tensor([2,1], dtype=torch.int32), step=slice(None,None,2),
    nothing=slice(0,0), tuple_int=(2,), with_dots=(slice(0,2),...), int_dots=(0,...))

@kinds
@pytest.mark.parametrize('idx', INDEX)
def test_index_picks_the_lengths_and_names_of_its_items(kind, idx):
    x,i = marks(kind),INDEX[idx]
    first = i[0] if isinstance(i, tuple) else i
    if isinstance(first, list): first = np.array(first, dtype=None if first else int)
    y,at = x[i],np.arange(3)[first if isinstance(first, slice) else np.asarray(first)]
    assert y.lengths.tolist()==np.array(NS)[at].tolist()
    assert y.fn==(FNS[at] if np.ndim(at)==0 else tuple(FNS[k] for k in at))
    assert is_honest(y) and known(y)[0]==known(x)[0]

@kinds
def test_channel_index_keeps_lengths(kind):
    x = marks(kind)
    for y in (x[:,:1], x[:,[1]], x[...,:1,:] if kind=='audio' else x[...,:1,:,:]): assert known(y)==known(x)
    assert known(x[1][:1])==known(x[1])

END = st.integers(-12,12)|st.none()

@given(st.sampled_from(['audio','spec']), st.lists(st.integers(0,9), min_size=1, max_size=4), END, END, st.integers(1,4)|st.none(),
       st.booleans())
def test_time_slice_keeps_lengths_true(kind, ns, a, b, step, item):
    x = marks(kind, ns, n=10)
    sl = slice(a,b,step)
    y = x[0][...,sl] if item else x[...,sl]
    assert y.lengths is not None and is_honest(y)

@kinds
def test_iteration_gives_each_item_its_own_length_and_name(kind):
    assert [(int(o.lengths), o.fn) for o in marks(kind)]==list(zip(NS, FNS))
    assert [(int(o.lengths), o.fn) for o in marks(kind).unbind(0)]==list(zip(NS, FNS))

BACK = torch.arange(12).flip(0)
MOVE = dict(
    flip_time=lambda x:x.flip(-1), flip_batch=lambda x:x.flip(0), flip_keyword=lambda x:torch.flip(input=x, dims=(0,)), flipud=torch.flipud,
    rot90=lambda x:torch.rot90(x, 2, (0,1)), roll=lambda x:x.roll(1,0), roll_time=lambda x:torch.roll(x,1,-1),
    sort=lambda x:x.sort(-1).values,
    index_select=lambda x:x.index_select(0, torch.tensor([2,0,1])), gather=lambda x:x.gather(-1, BACK.expand(x.shape)),
    take_along=lambda x:torch.take_along_dim(x, BACK.expand(x.shape), -1), transpose=lambda x:x.transpose(0,1),
    swapaxes=lambda x:x.swapaxes(0,1), movedim=lambda x:x.movedim(0,1), permute=lambda x:x.permute(1,0,*range(2,x.ndim)),
    narrow=lambda x:x.narrow(0,1,2), narrow_time=lambda x:x.narrow(-1,2,9), select=lambda x:x.select(0,2), split=lambda x:x.split(2)[1],
    chunk_time=lambda x:x.chunk(2,-1)[1], unsqueeze=lambda x:x[None], repeat=lambda x:x.repeat(2,*[1]*(x.ndim-1)),
    repeat_interleave=lambda x:x.repeat_interleave(2,0), flatten=lambda x:x.flatten(0,1), expand=lambda x:x.expand(2,*x.shape),
    pad_front=lambda x:F.pad(x,(2,0)), pad_end=lambda x:F.pad(x,(0,2)), reverse_list=lambda x:x[[2,1,0]],
    index_time=lambda x:x[...,[3,9,1]],
    mask_time=lambda x:x[...,torch.arange(12)>3], two_lists=lambda x:x[[0,1],[1,0]], cat=lambda x:torch.cat([x,x]),
    cat_time=lambda x:torch.cat([x,x],-1), cat_channels=lambda x:torch.cat([x,x],1), cat_keyword=lambda x:torch.cat(tensors=[x,x], dim=0),
    concat=lambda x:torch.concat([x,x]), concatenate=lambda x:torch.concatenate([x,x]), vstack=lambda x:torch.vstack([x,x]),
    mean_channels=lambda x:x.mean(1, keepdim=True), max_batch=lambda x:x.amax(0, keepdim=True))

@kinds
@pytest.mark.parametrize('op', MOVE)
@pytest.mark.parametrize('ns', [NS, (12,8,5)])
def test_lengths_are_never_wrong_after_moving_samples(kind, op, ns):
    y = MOVE[op](marks(kind, ns))
    assert y.lengths is None or is_honest(y)  # unknown is allowed, false is not

@kinds
@pytest.mark.parametrize('join', [torch.stack, fa_collate])
def test_stack_gathers_each_items_knowledge(kind, join):
    x = marks(kind)
    y = join([x[0],x[1],x[2]])
    assert known(y)==known(x) and torch.equal(y, x)
    whole = x[1:2,...,:8][0]; whole.lengths = None  # an item that was never padded is as long as it is
    assert join([x[0][...,:8], whole]).lengths.tolist()==[5,8]

@kinds
def test_collate_keeps_labels_beside(kind):
    x = marks(kind)
    xb,yb = fa_collate([(x[i], torch.tensor(i)) for i in range(3)])
    assert known(xb)==known(x) and yb.tolist()==[0,1,2] and not isinstance(yb, type(x))

@kinds
def test_cat_of_batches_joins_lengths(kind):
    x = marks(kind)
    y = torch.cat([x, x[[1]]])
    assert y.lengths.tolist()==[5,8,12,8] and y.fn==(*FNS,'b.wav') and is_honest(y)

def test_items_of_different_rate_refuse_to_stack():
    a,b = AudioTensor(torch.zeros(1,8), sr=8000, fn='low.wav'),AudioTensor(torch.zeros(1,8), sr=44100, fn='high.wav')
    for join in (torch.stack, torch.cat, fa_collate):
        with pytest.raises(ValueError, match='sr is 8000 in low.wav and 44100 in high.wav'): join([a,b])

def test_items_of_different_settings_refuse_to_stack():
    a = AudioSpectrogram.create(torch.zeros(1,4,8), settings=SETTINGS, fn='a.wav')
    b = AudioSpectrogram.create(torch.zeros(1,4,8), settings={**SETTINGS, 'hop_length':5, 'top_db':80}, fn='b.wav')
    for join in (torch.stack, torch.cat, fa_collate):
        with pytest.raises(ValueError, match='hop_length is 3 in a.wav and 5 in b.wav; top_db is None in a.wav and 80 in b.wav'):
            join([a,b])

@kinds
def test_impossible_lengths_are_refused(kind):
    make = partial(AudioTensor if kind=='audio' else AudioSpectrogram, marks(kind).plain())
    with pytest.raises(ValueError, match='lengths: expected shape'): make(lengths=[1,2])
    with pytest.raises(ValueError, match='lengths: expected 0 to 12, got 1 to 13'): make(lengths=[1,2,13])
    with pytest.raises(ValueError, match='got -1 to'): make(lengths=[1,-1,3])

def test_unknown_rate_is_an_error_not_a_guess(tmp_path):
    x = AudioTensor(torch.zeros(1,8))
    for f in (lambda: x.duration, lambda: x.show(hear=False), lambda: x.save(tmp_path/'a.wav')):
        with pytest.raises(ValueError, match='does not know its sample rate'): f()
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize('axes', ['freq', (0,2), (2,3), (0,3,4), 5, (0,3,-5)])
def test_bad_axes_are_refused(axes):
    with pytest.raises(ValueError, match='axes: '): as_axes(axes)

# ---- through workers

@pytest.fixture(scope='module')
def three(tmp_path_factory):
    "12 files of three lengths, and a table of them"
    path,r = tmp_path_factory.mktemp('three'),np.random.default_rng(0)
    rows = []
    for i in range(12):
        n = (4000,5001,7003)[i%3]
        sf.write(path/f'{i:02d}.wav', .1*r.normal(size=n), 8000)
        rows.append((f'{i:02d}.wav', 'xyz'[i%3], n))
    return path,pd.DataFrame(rows, columns=['filename','label','n'])

def block(path, **kw):
    kw = {'blocks':(AudioBlock(sample_rate=8000), CategoryBlock), 'splitter':IndexSplitter(range(6,12)), **kw}
    return DataBlock(get_x=ColReader('filename', pref=path), get_y=ColReader('label'), **kw)

def assert_own_lengths(dls, path, df, scale=lambda n:n):
    n_of = {str(path/f):n for f,n in zip(df.filename, df.n)}
    for dl in (dls.train, dls.valid):
        seen = []
        for xb,yb in dl:
            want = [scale(n_of[f]) for f in xb.fn]
            assert xb.lengths.tolist()==want and xb.shape[-1]==max(want) and len(set(want))==3
            assert [int(xb[i].lengths) for i in range(len(xb))]==want
            assert [dls.vocab[y] for y in yb]==[df.label[list(n_of).index(f)] for f in xb.fn]
            seen += xb.fn
        assert len(seen)==len(set(seen))==6

@pytest.fixture
def quick_end(monkeypatch):
    "Workers of a loader that broke off end within a moment, not after 5 s"
    monkeypatch.setattr('torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL', .2)
    yield
    gc.collect()

def message_of(dl):
    "The message with which a loader breaks off"
    try: list(dl)
    except (ValueError,FileNotFoundError) as e: return str(e)
    pytest.fail('the loader went through')

@pytest.mark.parametrize('workers', [0,2])
def test_each_items_length_survives_workers(three, workers):
    path,df = three
    dls = block(path).dataloaders(df, bs=6, num_workers=workers)
    assert_own_lengths(dls, path, df)
    assert dls.train.one_batch()[0].sr==8000

@pytest.mark.parametrize('where', ['item','batch'])
def test_frames_settings_and_names_survive_workers(three, where):
    path,df = three
    to_spec = AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram())
    dls = block(path, **{f'{where}_tfms':to_spec}).dataloaders(df, bs=6, num_workers=2)
    assert_own_lengths(dls, path, df, lambda n:1+n//200)
    xb = dls.valid.one_batch()[0]
    assert isinstance(xb, AudioSpectrogram) and (xb.sr, xb.n_fft, xb.hop_length, xb.to_db)==(8000,400,200,True) and len(xb.freqs)==201

@pytest.mark.parametrize('spec', [False,True])
def test_decoding_and_showing_keep_each_items_length(three, spec, monkeypatch):
    path,df = three
    to_spec = AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram()) if spec else None
    dls = block(path, batch_tfms=to_spec).dataloaders(df, bs=6, num_workers=2)
    b = dls.valid.one_batch()
    want = b[0].lengths.tolist()
    assert len(set(want))==3
    assert [int(o[0].lengths) for o in dls.valid.decode_batch(b)]==want
    assert [o[0].fn for o in dls.valid.decode_batch(b)]==list(b[0].fn)
    shown,cls = [],type(b[0]); show = cls.show
    monkeypatch.setattr(cls, 'show', lambda self,*a,**k: shown.append(int(self.lengths)) or show(self,*a,**k))
    dls.valid.show_batch(b=b, max_n=5)
    assert shown==want[:5]

@pytest.mark.parametrize('workers', [0,2])
@pytest.mark.parametrize('spec', [False,True])
def test_rates_that_differ_are_named_with_their_files_through_a_loader(tmp_path, workers, spec, quick_end):
    for n,sr in (('low.wav',8000),('high.wav',16000)): sf.write(tmp_path/n, np.zeros(4000), sr)
    df = pd.DataFrame(dict(filename=['low.wav','high.wav']*2, label=list('xyxy')))
    dls = block(tmp_path, blocks=(AudioBlock(sample_rate=None), CategoryBlock), splitter=IndexSplitter([2,3]),
        item_tfms=AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram()) if spec else None).dataloaders(df, bs=2, num_workers=workers)
    assert f"sr is 8000 in {tmp_path/'low.wav'} and 16000 in {tmp_path/'high.wav'}" in message_of(dls.valid)

# ---- files

def noise(ch=1, n=9001, sr=16000, seed=0): return AudioTensor(torch.randn(ch, n, generator=torch.Generator().manual_seed(seed))*.1, sr=sr)

# wav keeps float32; flac 24 bits, so half a step of 2**-23; ogg and mp3 are lossy: the noise that they add lies well below the signal
@pytest.mark.parametrize('ext,atol,rel', [('wav',0,0), ('flac',2**-23,1), ('ogg',None,.35), ('mp3',None,.7)])
@pytest.mark.parametrize('ch', [1,2])
@pytest.mark.parametrize('sr', [8000,16000,44100])
def test_save_and_create_round_trip(tmp_path, ext, atol, rel, ch, sr):
    x = noise(ch, 9001, sr)
    if atol is None:  # a tone, for a lossy coder drops noise where it cannot be heard
        x = AudioTensor(.3*torch.sin(2*torch.pi*440*torch.arange(9001)/sr).repeat(ch,1)*torch.tensor([1.,.5])[:ch,None], sr=sr)
    p = x.save(tmp_path/f'a.{ext}')
    y = AudioTensor.create(p)
    assert (y.sr, y.shape, y.dtype, y.fn, y.lengths)==(sr, x.shape, torch.float32, str(p), None)
    assert audio_info(p)==(9001, sr, ch)
    if atol is not None: assert (x-y).abs().max()<=atol
    else: assert ((x-y).plain()[...,1000:-1000].std()/x.plain().std())<rel/5
    assert [q.name for q in tmp_path.iterdir()]==[f'a.{ext}']

def test_create_reads_a_part_and_a_cache(tmp_path):
    x = noise(); p = x.save(tmp_path/'a.wav')
    assert torch.equal(AudioTensor.create(p, frame_offset=100, num_frames=50), x[:,100:150])
    assert torch.equal(AudioTensor.create(str(p), frame_offset=100), x[:,100:])
    (tmp_path/'cache').mkdir(); (x*0).save(tmp_path/'cache'/'a.wav')
    assert AudioTensor.create(p, cache_folder=tmp_path/'cache').abs().max()==0

def test_create_keeps_what_overshoots_and_pcm_scale(tmp_path):
    AudioTensor(torch.tensor([[2.,-3.]]), sr=8000).save(tmp_path/'a.wav')
    assert AudioTensor.create(tmp_path/'a.wav').tolist()==[[2.,-3.]]
    sf.write(tmp_path/'b.wav', np.array([-32768,16384], dtype=np.int16), 8000)
    assert AudioTensor.create(tmp_path/'b.wav').tolist()==[[-1.,.5]]

def test_file_of_a_pipe_with_unknown_size_is_read(tmp_path):
    p = noise().save(tmp_path/'a.wav'); b = bytearray(p.read_bytes())
    at = b.index(b'data')+4
    b[4:8] = b[at:at+4] = b'\xff'*4  # what ffmpeg writes to a pipe: both sizes unknown
    p.write_bytes(b)
    assert AudioTensor.create(p).shape==(1,9001)

BAD = {  # name -> what its message says
    'missing.wav':'no such audio file', 'empty.wav':'empty audio file', 'empty.mp3':'empty audio file', 'folder.wav':'directory',
    'text.wav':'cannot read', 'text.ogg':'cannot read', 'text.mp3':'cannot read', 'noise.flac':'cannot read', 'zero.wav':'no audio samples',
    'zero.flac':'zero.flac', 'nan.wav':'NaN or Inf in 1 of 9001 .*first at sample 77', 'inf.wav':'NaN or Inf .*sample 78'}

def bad_files(d):
    "Every kind of bad file"
    nan,inf = noise().plain().clone(),noise().plain().clone(); nan[0,77],inf[0,78] = torch.nan,-torch.inf
    for n,x in (('nan',nan),('inf',inf)): sf.write(d/f'{n}.wav', x.numpy().T, 16000, subtype='FLOAT')
    for n in ('wav','mp3'): (d/f'empty.{n}').touch()
    for n in ('wav','ogg','mp3'): (d/f'text.{n}').write_text('not audio\n'*50)
    for n in ('wav','flac'): sf.write(d/f'zero.{n}', np.zeros((0,1)), 16000)
    (d/'folder.wav').mkdir(); (d/'noise.flac').write_bytes(np.random.default_rng(0).bytes(5000))
    return d

@pytest.fixture(scope='module')
def bad(tmp_path_factory): return bad_files(tmp_path_factory.mktemp('bad'))

@pytest.mark.parametrize('name', BAD)
def test_bad_file_is_named(bad, name):
    with pytest.raises((ValueError,FileNotFoundError), match=BAD[name]) as e: AudioTensor.create(bad/name)
    assert str(bad/name) in str(e.value)
    if name in ('nan.wav','inf.wav'): return  # a header does not tell
    with pytest.raises((ValueError,FileNotFoundError)) as e: audio_info(bad/name)
    assert str(bad/name) in str(e.value)

@pytest.mark.parametrize('fn', [None, 3, b'a.wav', ['a.wav']])
def test_what_is_no_path_is_a_type_error(fn):
    with pytest.raises(TypeError, match='fn: expected a path, got'): AudioTensor.create(fn)

@pytest.mark.parametrize('ext', ['wav','flac','ogg','mp3'])
@pytest.mark.parametrize('cut', [.02,.3,.5,.9,.99,-200])
@pytest.mark.parametrize('n', [9001,40000])
def test_truncated_file_is_named(tmp_path, ext, cut, n):
    assert_truncated_is_named(tmp_path, ext, cut, n)

@pytest.mark.parametrize('ext', ['aiff','au','w64','rf64','caf'])
@pytest.mark.parametrize('cut', [.02,.5,-200])
def test_truncated_file_of_a_rarer_format_is_named(tmp_path, ext, cut): assert_truncated_is_named(tmp_path, ext, cut, 9001)

def assert_truncated_is_named(tmp_path, ext, cut, n):
    b = noise(n=n).save(tmp_path/f'whole.{ext}').read_bytes()
    p = tmp_path/f'cut.{ext}'
    p.write_bytes(b[:int(len(b)*cut) if cut>0 else cut])
    with pytest.raises(ValueError) as e: AudioTensor.create(p)
    assert str(p) in str(e.value)

@pytest.mark.parametrize('name', ['missing.wav','nan.wav','text.mp3','zero.wav','short.flac'])
@pytest.mark.parametrize('workers', [0,2])
def test_one_bad_file_of_many_is_named_also_from_a_worker(bad, tmp_path, name, workers, quick_end):
    good = [noise(seed=i).save(tmp_path/f'{i}.wav') for i in range(4)]
    if name=='short.flac': b = noise().save(bad/name).read_bytes(); (bad/name).write_bytes(b[:-500])
    files = [good[i%4] for i in range(40)]; files[29] = bad/name
    dls = DataBlock(blocks=AudioBlock, splitter=IndexSplitter(range(20,40))).dataloaders(files, bs=5, num_workers=workers)
    assert len(list(dls.train))==4
    assert str(bad/name) in message_of(dls.valid)

def test_save_refuses_to_overwrite_when_asked(tmp_path):
    x = noise(); p = x.save(tmp_path/'a.wav'); before = p.read_bytes()
    with pytest.raises(FileExistsError, match='a.wav'): (x*2).save(p, overwrite=False)
    assert p.read_bytes()==before
    (x*2).save(p)
    assert torch.equal(AudioTensor.create(p), x*2)

def test_failed_save_leaves_nothing_and_keeps_the_old_file(tmp_path, monkeypatch):
    x = noise(); p = x.save(tmp_path/'a.wav'); before = p.read_bytes()
    def half(f, *a, **k): Path(f).write_bytes(b'RIFF'); raise OSError('disk full')
    monkeypatch.setattr(sf, 'write', half)
    with pytest.raises(OSError, match='disk full'): x.save(p)
    assert [q.name for q in tmp_path.iterdir()]==['a.wav'] and p.read_bytes()==before

def test_save_refuses_what_is_no_item_no_format_no_folder(tmp_path):
    with pytest.raises(ValueError, match='save: expected an item'): torch.stack([noise(),noise()]).save(tmp_path/'a.wav')
    for n in ('a','a.txt'):
        with pytest.raises(ValueError, match='suffix of an audio format'): noise().save(tmp_path/n)
    with pytest.raises(FileNotFoundError, match='nowhere'): noise().save(tmp_path/'nowhere'/'a.wav')
    assert not list(tmp_path.iterdir())

def test_clipping_on_save_warns(tmp_path):
    with pytest.warns(UserWarning, match='clipped'): (noise()*100).save(tmp_path/'a.flac')
    with warnings.catch_warnings(): warnings.simplefilter('error'); (noise()*100).save(tmp_path/'a.wav')

# ---- pictures

def to_spec(x, cfg=AudioConfig.BasicSpectrogram): return AudioToSpec.from_cfg(cfg())(x)

@pytest.mark.parametrize('ch', [1,2])
def test_show_waveform_has_a_time_axis_in_seconds(ch):
    x = AudioTensor(F.pad(noise(ch, 8000, 16000).plain(), (0,8000)), sr=16000, lengths=8000)
    ax = x.show(hear=False, title='clip')
    assert (ax.get_xlabel(), ax.get_title())==('time (s)','clip') and ax.get_xlim()==(0,1)
    lines = [l for l in ax.lines if len(l.get_xdata())==16000]
    assert len(lines)==ch and lines[0].get_xdata()[8000]==.5
    assert [l.get_xdata()[0] for l in ax.lines if len(l.get_xdata())==2]==[.5]  # where padding begins
    assert (ax.get_legend() is not None)==(ch>1)

@pytest.mark.parametrize('ch', [1,2])
@pytest.mark.parametrize('cfg', [AudioConfig.BasicSpectrogram, AudioConfig.Voice])
def test_show_spectrogram_has_seconds_hertz_and_decibels(ch, cfg):
    sg = to_spec(noise(ch, 16000), cfg)
    ax = sg.show(title='clip'); fig = ax.figure
    fig.canvas.draw()
    assert ax.get_xlabel()=='time (s)' and ax.get_ylabel().startswith('frequency (Hz)') and ax.get_title()=='clip'
    assert ax.get_xlim()==pytest.approx((0,1), abs=.02)  # to a frame
    bar, = [a for a in fig.axes if a is not ax]
    assert all(t.get_text().endswith(' dB') for t in bar.get_yticklabels() if t.get_text())
    assert any(t.get_text() for t in bar.get_yticklabels())
    top = [t.get_text() for t in ax.get_yticklabels()]
    assert len(top)==(5 if ch==1 else 6)
    if cfg is AudioConfig.BasicSpectrogram: assert (top[0], top[-1])==('0','8k')
    assert ax.images[0].get_array().shape==(ch*sg.shape[-2], sg.shape[-1])

@pytest.mark.parametrize('x', [noise(), to_spec(noise())], ids=['audio','spec'])
def test_show_of_a_batch_asks_for_an_item(x):
    with pytest.raises(ValueError, match='show: expected an item.*index a batch first'): torch.stack([x,x]).show()

@pytest.mark.parametrize('spec', [False,True])
@pytest.mark.parametrize('mono', [False,True])
def test_show_batch_and_results_draw_axes_with_units(tmp_path, spec, mono):
    files = [noise(2, 8000+700*i, seed=i).save(tmp_path/f'{i}.wav') for i in range(6)]
    df = pd.DataFrame(dict(filename=[f.name for f in files], label=list('xyxyxy')))
    dls = block(tmp_path, blocks=(AudioBlock(force_mono=mono), CategoryBlock), splitter=IndexSplitter([3,4,5]),
                batch_tfms=AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram()) if spec else None).dataloaders(df, bs=3, num_workers=0)
    def axes():
        plt.gcf().canvas.draw()
        res = [a for a in plt.gcf().axes if a.get_xlabel()]; bars = [a for a in plt.gcf().axes if not a.get_xlabel() and a.axison]
        assert len(res)==3 and all(a.get_xlabel()=='time (s)' for a in res)
        if spec:
            assert all(a.get_ylabel().startswith('frequency (Hz)') for a in res) and len(bars)==3
            assert all(t.get_text().endswith(' dB') for a in bars for t in a.get_yticklabels() if t.get_text())
        plt.close('all')
        return [a.get_title() for a in res]
    b = dls.valid.one_batch()
    dls.valid.show_batch(b=b)
    assert axes()==['y','x','y']
    dls.valid.show_results(b, torch.tensor([1,1,0]))
    assert axes()==['y\ny','x\ny','y\nx']

def test_hear_makes_a_player(monkeypatch):
    import IPython.display
    shown = []
    monkeypatch.setattr(IPython.display, 'display', shown.append)
    noise(2).hear()
    assert '<audio' in shown[0]._repr_html_()

# ---- listing

def test_audio_files_are_found_sorted_and_only_audio(tmp_path):
    for n in ('b/2.wav','a/1.MP3','c.flac','notes.txt','a/x.csv'): p = tmp_path/n; p.parent.mkdir(exist_ok=True); p.touch()
    rel = lambda fs: [p.relative_to(tmp_path).as_posix() for p in fs]
    assert rel(get_audio_files(tmp_path))==['a/1.MP3','b/2.wav','c.flac']
    assert rel(get_audio_files(tmp_path, recurse=False))==['c.flac']
    assert rel(get_audio_files(tmp_path, folders=['b']))==['b/2.wav']
    with pytest.raises(FileNotFoundError, match='nowhere'): get_audio_files(tmp_path/'nowhere')

# ---- changing the samples in place
@pytest.mark.parametrize('dtype', [torch.float16,torch.float32,torch.float64])
@pytest.mark.parametrize('shape', [(50,),(2,50),(3,2,50),(2,3,1,50)])
def test_in_place_methods_change_real_samples_only_and_channels_alike(shape, dtype):
    lead = shape[:-2]
    ln = torch.randint(20, 51, lead) if len(shape)>1 else None
    x = AudioTensor(torch.rand(shape, dtype=torch.float64).add(1).to(dtype), sr=100, lengths=ln)
    pad = ~x.real_mask if len(shape)==1 else (~x.real_mask).unsqueeze(-2).expand(shape)
    for call,least in ((lambda o: o.apply_gain(0.5), 0), (lambda o: o.cutout(0.3), 1), (lambda o: o.lose_signal(0.5), 1)):
        y = x.clone(); ptr = y.data_ptr()
        assert call(y) is y and y.data_ptr()==ptr and y.dtype==dtype and y.sr==100
        assert torch.equal(y.plain()[pad], x.plain()[pad])
        assert not torch.equal(y.plain(), x.plain())
        if least and len(shape)>1: assert torch.equal((y==0).plain().all(-2), (y==0).plain().any(-2))
    assert torch.equal(x.clone().apply_gain(0.5).plain()[~pad], x.plain()[~pad]*0.5)

def test_cutout_is_one_run_of_the_asked_share_anywhere():
    torch.manual_seed(0)
    x = AudioTensor(torch.ones(400,1,20), sr=100, lengths=[20,10]*200).cutout(0.25)
    zero = (x.plain()==0)[:,0]
    assert zero.sum(1).tolist()==[5,2]*200
    start = zero.int().argmax(1)
    for i,n in ((0,5),(1,2)):
        assert all(zero[k,s:s+n].all() for k,s in enumerate(start.tolist()) if k%2==i)
        assert set(start[i::2].tolist())==set(range([20,10][i]-n+1))  # 200 draws of 16 and of 9 places

def test_lose_signal_loses_the_asked_share_and_each_item_its_own():
    torch.manual_seed(0)
    x = AudioTensor(torch.ones(2,2,20000), sr=100).lose_signal(0.3)
    zero = (x.plain()==0)
    assert zero.double().mean()==pytest.approx(0.3, abs=0.01)  # the deviation of a mean of 40000 draws is 0.0023
    assert not torch.equal(zero[0], zero[1])

@pytest.mark.parametrize('pct,n', [(0,0),(1,8)])
def test_nothing_and_everything_can_be_cut(pct, n):
    for f in ('cutout','lose_signal'):
        x = getattr(AudioTensor(torch.full((1,10), float('nan')), sr=100, lengths=8), f)(pct)
        assert (x.plain()==0).sum()==n

def test_in_place_methods_follow_the_random_seed():
    def draw(f):
        torch.manual_seed(3); return getattr(AudioTensor(torch.ones(4,1,100), sr=100), f)(0.2)
    for f in ('cutout','lose_signal'): assert torch.equal(draw(f), draw(f))

@pytest.mark.parametrize('f,name', [('cutout','cut_pct'),('lose_signal','loss_pct')])
@pytest.mark.parametrize('v', [-0.1,1.1,15,float('nan'),'0.1',None])
def test_a_share_outside_0_to_1_is_refused(f, name, v):
    with pytest.raises(ValueError, match=f'^{name}: expected a share from 0 to 1, got '): getattr(AudioTensor(torch.ones(1,10), sr=100), f)(v)

def test_in_place_methods_change_memory_that_is_shared_and_not_that_which_is_expanded():
    a = np.ones((1,10), dtype=np.float32)
    AudioTensor(torch.from_numpy(a), sr=100).apply_gain(2)
    assert (a==2).all()
    xb = AudioTensor(torch.ones(2,1,10), sr=100, lengths=[10,5])
    xb[0].apply_gain(3)
    assert xb[0].eq(3).all() and xb[1].eq(1).all()
    one = torch.ones(1,10)
    x = AudioTensor(one.expand(3,10), sr=100, lengths=7, fn='a.wav')
    assert x.cutout(1) is x and (x.plain()==0).sum()==21 and (one==1).all() and (x.sr,int(x.lengths),x.fn)==(100,7,'a.wav')

def test_in_place_methods_work_on_leaves_and_leave_the_gradient_flag():
    for need in (False,True):
        x = AudioTensor(torch.ones(1,10), sr=100).requires_grad_(need)
        assert x.apply_gain(2).cutout(0.5).lose_signal(0).requires_grad==need and x.is_leaf

def test_gain_may_differ_by_item():
    x = AudioTensor(torch.ones(2,1,4), sr=100, lengths=[4,2]).apply_gain(torch.tensor([2.,3.]).view(2,1,1))
    assert x.plain()[:,0].tolist()==[[2,2,2,2],[3,3,1,1]]

# ---- torch.save and torch.load
def _saved():
    x = AudioTensor(torch.randn(2,100), sr=16000, lengths=70, fn=Path('a/b.wav'), waveform_norm='standard')
    s = AudioSpectrogram.create(torch.randn(1,5,10), settings=dict(sr=np.int64(16000), n_fft=8, hop_length=4, pad_mode=Path('p'), top_db=np.float32(80),
        melkwargs=dict(window_fn=torch.hamming_window, at=[np.float64(1)])), freqs=np.arange(5.), lengths=7, fn=Path('c.wav'), silent=torch.arange(10)<2)
    return dict(item=x, batch=torch.stack([x,x.clone()]), spec=s, specs=torch.stack([s,s.clone()]), all=[x, {'s':s}], half=x.half(), double=s.double())

def test_saved_tensors_open_with_torchs_safe_default_in_a_new_process(tmp_path):
    for k,v in _saved().items(): torch.save(v, tmp_path/f'{k}.pt')
    code = '''
import io,sys,torch
from pathlib import Path
from specnorm_fastai.core import AudioTensor,AudioSpectrogram
d = Path(sys.argv[1])
o = {f.stem:torch.load(f) for f in d.glob('*.pt')}
assert {k:torch.load(io.BytesIO((d/f'{k}.pt').read_bytes())) for k in o}.keys()=={'item','batch','spec','specs','all','half','double'}
x,xb,s,sb,a = o['item'],o['batch'],o['spec'],o['specs'],o['all']
assert type(x) is type(xb) is type(a[0]) is AudioTensor and type(s) is type(sb) is type(a[1]['s']) is AudioSpectrogram
assert (x.sr,int(x.lengths),x.fn,x.waveform_norm)==(16000,70,'a/b.wav','standard') and x.shape==(2,100)
assert xb.lengths.tolist()==[70,70] and xb.fn==('a/b.wav','a/b.wav')
assert s.settings==dict(sr=16000,n_fft=8,hop_length=4,pad_mode='p',top_db=80.,melkwargs=dict(window_fn='hamming_window',at=[1.]))
assert s.freqs==(0.,1.,2.,3.,4.) and s.silent.tolist()==[True]*2+[False]*8 and s.fn=='c.wav' and int(s.lengths)==7
assert sb.silent.shape==(2,10) and sb.fn==('c.wav',)*2 and sb.settings==s.settings and sb.freqs==s.freqs
assert o['half'].dtype==torch.float16 and o['double'].dtype==torch.float64 and o['half'].sr==16000
'''
    r = subprocess.run([sys.executable,'-c',code,str(tmp_path)], capture_output=True, text=True)
    assert r.returncode==0, r.stderr[-2000:]

def test_what_our_transforms_make_can_be_saved_and_loaded():
    from specnorm_fastai.features import AudioConfig,AudioToMFCC,AudioToSpec
    x = AudioTensor(torch.randn(1,4000), sr=16000)
    for tfm in (AudioToSpec.from_cfg(AudioConfig.Voice(window_fn=torch.hamming_window, wkwargs=dict(periodic=False))),
                AudioToMFCC(n_mfcc=5, melkwargs=dict(n_fft=512, n_mels=20, window_fn=torch.hamming_window))):
        f = io.BytesIO(); torch.save(sg:=tfm(x), f); f.seek(0)
        back = torch.load(f)
        assert torch.equal(back, sg) and back.settings==sg.settings and torch.equal(back.silent, sg.silent)

def test_only_our_two_types_are_registered_as_safe():
    code = '''
import torch
import fastai.vision.data,fastai.interpret
before = set(torch.serialization.get_safe_globals())
import specnorm_fastai.core as c
assert set(torch.serialization.get_safe_globals())-before=={c.AudioTensor,c.AudioSpectrogram}
'''
    r = subprocess.run([sys.executable,'-c',code], capture_output=True, text=True)
    assert r.returncode==0, r.stderr[-2000:]

@pytest.mark.parametrize('k,sr', [(2,8000),(3,None),(-2,8000),(1,16000)])
def test_every_kth_sample_is_a_rate_of_its_own(k, sr):
    x = AudioTensor(torch.rand(1,4800), sr=16000)
    if k<0: x = AudioTensor(x.plain().flip(-1), sr=16000); assert AudioTensor(x.plain(), sr=16000)[...,::2].sr==sr; return
    assert x[...,::k].sr==sr and x[...,10:20].sr==16000 and torch.stack([x,x])[...,::k].sr==sr
    sg = AudioSpectrogram.create(torch.rand(1,5,90), settings=dict(sr=16000, hop_length=100))
    assert sg[...,::k].hop_length==100*k and sg[...,3:9].hop_length==100

def test_a_list_of_names_is_indexed_as_a_tuple_is():
    x = AudioTensor(torch.rand(2,1,9), sr=8, fn=['a.wav','b.wav'])
    assert x[1].fn=='b.wav' and x.fn==('a.wav','b.wav')

@pytest.mark.parametrize('fmt', ['WAV','WAVEX','RF64','W64','AIFF','FLAC','CAF','AU'])
@pytest.mark.parametrize('ch', [1,2])
@pytest.mark.parametrize('at', [(0,-1),(3,50)])
def test_samples_are_those_of_soundfile_to_the_last_bit(tmp_path, fmt, ch, at):
    "Whole numbers are read as such from wav files and scaled by a power of two, all others as float32"
    x = np.random.default_rng(0).uniform(-1, 1, (997,ch)); x[:5] = np.array([1,-1,0,-0.,2**-15])[:,None]
    for sub in sf.available_subtypes(fmt):
        if not sub.startswith(('PCM','FLOAT','DOUBLE','ULAW','ALAW','ALAC')): continue
        p = tmp_path/f'{sub}.{fmt.lower()}'
        for endian in ('FILE','BIG') if (fmt,sub)==('WAV','PCM_16') else ('FILE',):
            sf.write(p, x, 8000, subtype=sub, format=fmt, endian=endian)
            want = sf.read(p, dtype='float32', always_2d=True, start=at[0], frames=at[1])[0].T
            got = AudioTensor.create(p, frame_offset=at[0], num_frames=at[1])
            assert got.sr==8000 and got.is_contiguous() and got.dtype==torch.float32
            assert np.array_equal(got.numpy(), want) and np.array_equal(np.signbit(got.numpy()), np.signbit(want)), sub

@pytest.mark.parametrize('make', [lambda x: AudioTensor(x, sr=16000), lambda x: AudioSpectrogram(x[:,None], settings=dict(sr=16000))], ids=['audio','spec'])
def test_a_scalar_is_formatted_as_torchs(make):
    x = torch.randn(2,3,5); t = make(x)
    for s in ('.1f','','>12.3e'): assert format(t.min(), s)==format(x.min(), s)
    assert f'{t.sum().requires_grad_():.2f}'==f'{x.sum():.2f}' and f'{(t>0).sum():3d}'==f'{(x>0).sum():3d}'
    assert f'{t}'==str(t)
    with pytest.raises(TypeError): f'{t:.1f}'
