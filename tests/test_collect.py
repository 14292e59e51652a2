"The pass over a train split: only it, all of it, as it is without augmentation; and samples of it"
import random,warnings
import numpy as np, pytest, torch
from fastai.vision.all import CategoryBlock,ColReader,DataBlock,DisplayedTransform,RandTransform,pd
from fastai.data.load import SkipItemException
from fasttransform.transform import Transform
from specnorm_fastai.all import *
from specnorm_fastai.stats import _first_look,_growth,_sure

def _cfg(): return AudioConfig.BasicMelSpectrogram(n_fft=512, hop_length=256, n_mels=16)
def _table(path): return pd.read_csv(path/'meta'/'synthetic.csv')
def _dls(path, *tfms, df=None, item_tfms=None, workers=0, bs=12, block=AudioBlock, **kw):
    return DataBlock(blocks=(block, CategoryBlock), get_x=ColReader('filename', pref=path/'audio'), get_y=ColReader('category'), splitter=CrossValidationSplitter(), item_tfms=item_tfms,
                     batch_tfms=[AudioNormalize(), AudioToSpec.from_cfg(_cfg()), *tfms]).dataloaders(_table(path) if df is None else df, bs=bs, num_workers=workers, **kw)
def _frames(path, names, mask='silence'):
    to = AudioToSpec.from_cfg(_cfg())
    sgs = [to(AudioNormalize()(AudioTensor.create(path/'audio'/f))) for f in names]
    return torch.cat([s.plain().double()[...,~s.silent] if mask=='silence' else s.plain().double() for s in sgs], -1)

@pytest.mark.parametrize('workers', [0,2])
def test_a_poisoned_validation_clip_changes_nothing(synthetic, tmp_path, workers):
    "A validation clip a million times too loud, another full of NaN, another that is no audio: the statistics are those of the train clips"
    import shutil,soundfile as sf
    shutil.copytree(synthetic, tmp_path/'d'); df = _table(synthetic)
    a,b,c = df.filename[df.fold==1].iloc[:3]
    sf.write(tmp_path/'d'/'audio'/a, np.random.randn(16000)*1e6, 16000, subtype='FLOAT')
    sf.write(tmp_path/'d'/'audio'/b, np.full(16000, np.nan), 16000, subtype='FLOAT')
    (tmp_path/'d'/'audio'/c).write_bytes(b'no audio')
    norm = SpecNormalize()
    s = collect_stats(_dls(tmp_path/'d', norm, workers=workers))
    x = _frames(synthetic, df.filename[df.fold!=1])
    # batches run through float32 mel filters in another order than single clips
    assert s.n_clips==64 and abs(s.reduce('global').mean.item()-x.mean().item())<1e-4 and abs(s.reduce('global').std.item()/x.std(correction=0).item()-1)<1e-6
    assert abs(norm.mean.item()-s.reduce('global').mean.item())<1e-9

@pytest.mark.parametrize('mask', frame_masks)
def test_padding_a_batch_to_any_length_changes_no_statistic_and_no_normalized_value(synthetic, mask):
    "1e-6, as float32 mel filters may sum in another order for another width"
    df = _table(synthetic); x = [AudioTensor.create(synthetic/'audio'/f) for f in df.filename[:9]]
    to,res = AudioToSpec.from_cfg(_cfg()),[]
    for n in (0,1,5000,40000):
        xb = torch.stack(PadAudio()([*x, AudioTensor(torch.zeros(1, 16000+n), sr=16000, lengths=800)]))
        sg = to(AudioNormalize()(xb))
        rec = StatsRecorder('frequency', quantiles=True)
        if mask is None: rec.update(sg[:9,...,:30]); continue  # counts padding: what it sees is what it is given
        rec.update(sg, mask=sg.frame_mask(mask))
        s = SpecStats.from_recorder(rec)
        z = SpecNormalize.from_stats(s, axes='frequency')(sg)
        res.append((s.mean, s.std, s.quantile(.3), torch.cat([o.plain()[...,:n] for o,n in zip(z[:9], z.lengths)], -1), s.count))
    for r in res[1:]:
        for a,b in zip(res[0][:4], r): assert (a-b).abs().max()<=1e-6*max(1,a.abs().max())
        assert torch.equal(res[0][4], r[4])

def test_silence_is_the_default_everywhere_and_counted(synthetic):
    norm,df = SpecNormalize(axes='frequency'),_table(synthetic)
    dls = _dls(synthetic, norm)
    s,p,n = (collect_stats(dls, mask=m) for m in frame_masks)
    assert collect_stats(dls)==s and (norm.mean-s.reduce('frequency').mean).abs().max()<1e-9
    f,g,h = (o.provenance['frames'] for o in (s,p,n))
    x = _frames(synthetic, df.filename[df.fold!=1], mask=None)
    assert f['counted']==_frames(synthetic, df.filename[df.fold!=1]).shape[-1] and f['counted']+f['silent']==g['counted']==x.shape[-1] and h['padding']==0 and h['counted']==g['counted']+g['padding']
    assert f'{f["silent"]:,} frames silent' in repr(s) and 'frames silent' in repr(collect_stats(dls, StatsRecorder())[0])
    assert (SpecNormalize(axes='frequency', mask='padding').mask, s.provenance['mask'])==('padding','silence')

class _Noise(Transform):
    "Random, and at validation time too"
    order = 50
    def encodes(self, x:AudioSpectrogram): return x+torch.rand(1)*1000
class _Shift(Transform):
    def encodes(self, x:AudioTensor): return AudioTensor(x.plain().roll(random.randint(0,999), -1)*random.random(), sr=x.sr, fn=x.fn)

@pytest.mark.parametrize('name', ['_Noise', _Noise, None])
def test_named_random_transforms_are_taken_out_and_put_back_also_after_an_error(synthetic, name):
    noise,shift = _Noise(),_Shift()
    plain = collect_stats(_dls(synthetic))
    dls = _dls(synthetic, noise, item_tfms=shift)
    before = [list(p.fs) for p in (dls.train.after_item,dls.train.after_batch)]
    s = collect_stats(dls, leave_out=[noise if name is None else name, '_Shift'])
    assert s==plain and [list(p.fs) for p in (dls.train.after_item,dls.train.after_batch)]==before
    assert abs(collect_stats(dls).reduce('global').mean.item()-plain.reduce('global').mean.item())>50
    with pytest.raises(ValueError, match="leave_out: no transform 'Nois' here"): collect_stats(dls, leave_out='Nois')
    class Broken(Transform):
        order = 51
        on = False
        def encodes(self, x:AudioSpectrogram):
            if self.on: raise KeyError('broken')
            return x
    dls = _dls(synthetic, noise, broken:=Broken()); broken.on = True
    before = list(dls.train.after_batch.fs)
    with pytest.raises(KeyError): collect_stats(dls, leave_out=_Noise)
    assert list(dls.train.after_batch.fs)==before
    assert dls.train_ds.split_idx==0

def test_a_random_type_transform_of_the_dataset_is_taken_out_too(synthetic):
    class Rnd(Transform):
        def encodes(self, x:AudioTensor): return x+random.random()
    blk = lambda: __import__('fastai.data.block',fromlist=['TransformBlock']).TransformBlock(type_tfms=[*AudioBlock().type_tfms, Rnd()], dls_kwargs={'before_batch':[PadAudio()]})
    dls = _dls(synthetic, block=blk())
    n = len(dls.train_ds.tls[0].tfms.fs)
    assert collect_stats(dls, leave_out='Rnd')==collect_stats(_dls(synthetic)) and len(dls.train_ds.tls[0].tfms.fs)==n

def test_items_that_are_skipped_are_told(synthetic):
    class Skip(Transform):
        def encodes(self, x:AudioTensor):
            if 'siren' in str(x.fn): raise SkipItemException
            return x
    with pytest.warns(UserWarning, match='8 of 64 items gave no spectrogram'): s = collect_stats(_dls(synthetic, item_tfms=Skip()))
    assert s.n_clips==56

def test_bad_frames_are_named_at_the_end_of_the_pass_or_skipped_and_listed(synthetic):
    from fasttransform.cast import retain_meta
    class Poison(Transform):
        order = 50
        def encodes(self, x:AudioSpectrogram):
            y = x.plain().clone()
            for i,f in enumerate(x.fn):
                if 'chord' in f: y[i,0,3,5] = float('nan')
            return retain_meta(x, AudioSpectrogram(y))
    dls = _dls(synthetic, Poison())
    to = AudioToSpec.from_cfg(_cfg())
    chords = [f for f in dls.train_ds.items.filename if 'chord' in f and not to(AudioTensor.create(synthetic/'audio'/f)).silent[5]]  # a silent frame does not count, whatever it holds
    with pytest.raises(ValueError, match=f'NaN or Inf in {len(chords)} clips') as e: collect_stats(dls)
    assert all(f in str(e.value) for f in chords)
    s = collect_stats(dls, on_bad='skip')
    good = _frames(synthetic, dls.train_ds.items.filename)
    assert s.provenance['frames']['bad']==len(chords)>0 and s.provenance['frames']['counted']+len(chords)==good.shape[-1] and [p.split('/')[-1] for p in s.provenance['bad_files']]==chords
    assert 'frames bad' in repr(s)

def test_all_silent_data_and_unknown_silence_are_told(tmp_path, synthetic):
    import soundfile as sf
    for i in range(3): sf.write(tmp_path/f'{i}.wav', np.zeros(8000), 16000)
    with pytest.raises(ValueError, match='no frames that count.*silent'): collect_stats(get_audio_files(tmp_path), tfms=[AudioToSpec.from_cfg(_cfg())])
    class Own(Transform):
        def encodes(self, x:AudioTensor): return AudioSpectrogram(spectrogram(x.plain(), 512), settings={'mine':1}, lengths=None if x.lengths is None else n_frames(x.lengths, 512, 256))
    own = lambda: DataBlock(blocks=(AudioBlock, CategoryBlock), get_x=ColReader('filename', pref=synthetic/'audio'), get_y=ColReader('category'), splitter=CrossValidationSplitter(), batch_tfms=Own()).dataloaders(_table(synthetic), bs=12, num_workers=0)
    with pytest.warns(UserWarning, match='do not say which frames are silent'): s = collect_stats(own())
    assert s.provenance['mask']=='padding'
    with warnings.catch_warnings(): warnings.simplefilter('error', UserWarning); assert collect_stats(own(), mask='padding')==s

# --- samples

def test_a_fraction_is_a_random_sample_of_clips(synthetic):
    dls,seen = _dls(synthetic),[]
    a,b,c = collect_stats(dls, frac=.25),collect_stats(dls, frac=.25),collect_stats(dls, frac=.25, seed=1)
    assert a==b and a!=c and a.n_clips==16 and a.provenance['clips_in_split']==64 and '16 of 64 clips' in repr(a)
    assert collect_stats(dls, frac=1.).n_clips==64
    # the sample is of clips from everywhere, not the first ones
    from specnorm_fastai.stats import stats_pass
    order = np.random.default_rng(0).permutation(64)[:16]
    files = [dls.train_ds.items.filename.iloc[i] for i in order]
    x = _frames(synthetic, files)
    assert abs(a.reduce('global').mean.item()-x.mean().item())<1e-4
    for kw,msg in ((dict(frac=0),'frac'),(dict(frac=1.2),'frac'),(dict(tol=0),'tol'),(dict(tol=-1),'tol'),(dict(mask='no'),'mask'),(dict(on_bad='x'),'on_bad'),(dict(source='nope'),"source: no column 'nope'"),(dict(source=[1,2]),'source: expected one for each of 64')):
        with pytest.raises(ValueError, match=msg): collect_stats(dls, **kw)

def test_standard_errors_are_clustered_by_the_tables_source(synthetic):
    df = _table(synthetic); df['src_file'] = df.index%80//4
    s,clip,own = collect_stats(_dls(synthetic, df=df)),collect_stats(_dls(synthetic, df=df), source=False),collect_stats(_dls(synthetic, df=df.rename(columns={'src_file':'take'})), source='take')
    assert (s.provenance['clustered_by'],clip.provenance['clustered_by'])==('src_file','clip') and torch.equal(s.standard_error(), own.standard_error()) and not torch.equal(s.standard_error(), clip.standard_error())
    assert torch.allclose(s.mean, clip.mean, rtol=1e-13)
    # by hand: one residual a source
    tr = df[df.fold!=1]; xs = {k:_frames(synthetic, g.filename)[0] for k,g in tr.groupby('src_file')}
    m = torch.cat(list(xs.values()),-1).mean(-1); e = torch.stack([(x-m[:,None]).sum(-1) for x in xs.values()]); g = len(xs)
    want = (g/(g-1)*e.pow(2).sum(0)).sqrt()/sum(x.shape[-1] for x in xs.values())
    assert torch.allclose(s.standard_error().flatten(), want, rtol=1e-4)
    fn = lambda r: r.src_file
    assert torch.equal(collect_stats(_dls(synthetic, df=df), source=fn).standard_error(), s.standard_error())

def test_it_stops_by_itself_when_sure_and_says_how_many_clips_it_took(tmp_path):
    path = synthetic_audio(tmp_path, n=400, seconds=.25)
    dls = _dls(path, df=pd.read_csv(path/'meta'/'synthetic.csv'))
    a,b = collect_stats(dls, tol=.5),collect_stats(dls, tol=1e-6)
    assert 64<=a.n_clips<200 and b.n_clips==320 and f'{a.n_clips} of 320 clips' in repr(a)
    lo,hi = a.interval(simultaneous=True, finite=True)
    assert ((hi-lo)/2<=.5*a.std).all() and b.standard_error(finite=True).max()==0
    assert collect_stats(dls, tol=1e-6, frac=.5).n_clips==160
    rec = StatsRecorder('global'); collect_stats(dls, rec, tol=.5)
    assert rec.nobservations<=a.n_clips  # one mean is sure before all are

@pytest.mark.parametrize('heavy', [False,True])
def test_intervals_hold_what_they_promise_with_the_stopping_rule(heavy):
    "100 samples of 1000 clips, levels normal or Student's t of 4 degrees: 95 % promised, below 88 % would be chance once in 250; the tolerance itself is met more often"
    r = np.random.default_rng(3)
    lev = (r.standard_t(4, 1000)/2**.5 if heavy else r.normal(size=1000))*12
    x = torch.tensor(-40+lev[:,None,None,None]+r.normal(size=(1000,1,1,1))*6*np.linspace(-1,1,16)[:,None]+r.normal(size=(1000,1,16,10))*6, dtype=torch.float32)
    def part(i):
        rec = StatsRecorder((0,3), groups=128); rec.update(x[i]); return SpecStats.from_recorder(rec, clips_in_split=1000)
    whole,held,within,took = part(np.arange(1000)).mean,[],[],[]
    for _ in range(100):
        order,at = r.permutation(1000),0
        while True:
            at = min(1000, max(_first_look, int(np.ceil(at*_growth))))
            s = part(order[:at])
            if at==1000 or _sure(s, [(0,3)], .2): break
        lo,hi = s.interval(simultaneous=True, finite=True)
        held.append(((lo<=whole)&(whole<=hi)).all().item()); within.append(((s.mean-whole).abs()<=.2*s.std).all().item()); took.append(at)
    print(heavy, np.mean(held), np.mean(within), np.mean(took))
    assert np.mean(held)>=.88 and np.mean(within)>=.93 and np.mean(took)<400

def test_files_give_what_a_dataloader_gives(synthetic):
    df = _table(synthetic); files = [synthetic/'audio'/f for f in df.filename[df.fold!=1]]
    tfms = [AudioNormalize(), AudioToSpec.from_cfg(_cfg())]
    a,b,c = collect_stats(_dls(synthetic)),collect_stats(files, tfms=tfms),collect_stats([str(f) for f in files], tfms=tfms, workers=2)
    assert b==c and torch.allclose(a.mean, b.mean, atol=1e-5) and torch.equal(a.count, b.count) and a.fingerprint==b.fingerprint
    for args,kw,err in ((([],),{},'at least one file'), ((files,),{},'tfms: expected the transforms'), ((str(files[0]),),dict(tfms=tfms),'the one path'), ((3,),{},'got int'), (([3],),dict(tfms=tfms),'paths of audio files'), ((_dls(synthetic),),dict(tfms=tfms),'tfms: expected together'), ((_dls(synthetic),),dict(client=1),'client: expected together')):
        with pytest.raises((ValueError,TypeError), match=err): collect_stats(*args, **kw)

def test_no_update_asks_the_device():
    "On the meta device whatever would need a value (item, bool, tolist) raises: so no batch makes the CPU wait for a GPU"
    x,ln = torch.empty(5,1,8,30, device='meta'),torch.empty(5, dtype=torch.int64, device='meta')
    for kw in ({}, dict(quantiles=True, groups=16), dict(groups=16, on_bad='skip')):
        rec = StatsRecorder(**kw)
        for _ in range(3): rec.update(AudioSpectrogram(x, settings=dict(sr=1, to_db=True)), mask=torch.empty(5,30, dtype=torch.bool, device='meta'), lengths=ln)
        assert rec.nobservations==15 and rec._table[0].device.type=='meta'

def test_channels_and_rows_put_together_keep_padding_and_silence_out_and_what_loses_it_is_told(synthetic):
    class Twice(Transform):
        order = 50
        def encodes(self, x:AudioSpectrogram): return torch.cat([x,x], dim=1)
    class Lose(Transform):
        order = 50
        def encodes(self, x:AudioSpectrogram): return x.flip(2)
    a,b = collect_stats(_dls(synthetic)),collect_stats(_dls(synthetic, Twice()))
    assert torch.allclose(b.mean, a.mean.expand(1,2,-1,-1), rtol=1e-12) and b.provenance['frames']==a.provenance['frames']
    with pytest.warns(UserWarning, match='lost the lengths'): c = collect_stats(_dls(synthetic, Lose()))
    assert c.provenance['mask'] is None

def test_rows_taken_have_their_frequencies_and_another_fingerprint():
    x = AudioToSpec.from_cfg(_cfg())(AudioTensor(torch.randn(2,9000), sr=16000))
    y,z = x[:,3:9],x[:,4:10]
    assert y.freqs==x.freqs[3:9] and len({str(fingerprint(o)) for o in (x,y,z,x[:1],x[1:])})==5 and fingerprint(x[:,:,4:])==fingerprint(x)==fingerprint(x[None])
    rec = StatsRecorder((0,3), quantiles=True, groups=8); rec.update(y[None])
    SpecStats.from_recorder(rec).plot()

def test_clips_of_unknown_origin_stand_for_themselves(synthetic):
    df = _table(synthetic); df['src_file'] = ''
    assert torch.equal(collect_stats(_dls(synthetic, df=df)).standard_error(), collect_stats(_dls(synthetic)).standard_error())

def test_a_callback_measures_again_after_other_transforms(synthetic):
    from fastai.vision.all import AdaptiveAvgPool,Flatten,Learner,nn
    dls = _dls(synthetic); learn = Learner(dls, nn.Sequential(AdaptiveAvgPool(1),Flatten(),nn.Linear(1,8)), cbs=StatsCallback())
    with learn.no_bar(), learn.no_logging():
        learn.fit(1); a = learn.stats.result; learn.fit(1); assert learn.stats.result is a
        for dl in dls.loaders: dl.after_batch.fs[1] = AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_fft=1024, n_mels=16))
        learn.fit(1)
    assert (a.fingerprint['n_fft'],learn.stats.result.fingerprint['n_fft'])==(512,1024)

def test_units_come_back_after_decoding():
    x = AudioSpectrogram(torch.randn(2,1,4,9)*5-40, settings={'units':'dB','sr':16000})
    n = SpecNormalize(-40., 5.)
    assert n.decode(n(x)).settings==x.settings and n(x).units=='std' and fingerprint(n.decode(n(x)))==fingerprint(x)

# --- measured by the worker processes
def _same(a, b):
    for f in (lambda s: s.mean, lambda s: s.std, lambda s: s.interval()[0]): assert torch.allclose(f(a.reduce('frequency')), f(b.reduce('frequency')), rtol=1e-12, atol=1e-12)
    assert a.n_clips==b.n_clips and torch.equal(a.quantile(.3), b.quantile(.3)) and a.provenance['frames']==b.provenance['frames']

@pytest.mark.parametrize('workers,bs', [(1,7),(2,7),(3,30),(2,100)])
def test_worker_processes_measure_what_the_main_process_would(synthetic, workers, bs, monkeypatch):
    "Sums are added up in another order: the tolerance is a few thousand roundings of float64"
    from specnorm_fastai import stats
    seen = []
    old = stats._measure_in_workers
    monkeypatch.setattr(stats, '_measure_in_workers', lambda sdl, *a: seen.append(sdl.fake_l.num_workers) or old(sdl, *a))
    a,b = collect_stats(_dls(synthetic, bs=bs)),collect_stats(_dls(synthetic, bs=bs, workers=workers))
    _same(a, b)
    assert seen==[min(workers, -(-64//bs))]  # no more of them than batches
    _same(collect_stats(_dls(synthetic, bs=bs), frac=.3, seed=3), collect_stats(_dls(synthetic, bs=bs, workers=workers), frac=.3, seed=3))
    monkeypatch.setattr(stats, '_may_move', lambda sdl: False)
    _same(a, collect_stats(_dls(synthetic, bs=bs, workers=workers)))

class _Own(Transform):
    order,calls = 50,0
    def encodes(self, x:AudioSpectrogram): _Own.calls += 1; return x

def test_a_transform_of_somebody_else_runs_in_the_main_process(synthetic):
    dls = _dls(synthetic, _Own(), workers=2)
    _Own.calls = 0
    collect_stats(dls)
    assert _Own.calls==6

def test_worker_processes_tell_errors_warnings_and_bad_clips_as_the_main_process_does(tmp_path):
    rng = np.random.default_rng(0)
    def dls(xs, cfg, workers):
        items = [AudioTensor(torch.tensor(x, dtype=torch.float32)[None], sr=16000) for x in xs]
        return DataBlock(get_x=lambda i: items[i], blocks=TransformBlock(dls_kwargs={'before_batch':PadAudio()}), splitter=lambda o: (range(len(o)),[0]),
                         batch_tfms=AudioToSpec.from_cfg(cfg)).dataloaders(range(len(xs)), bs=3, num_workers=workers)
    def told(xs, cfg=_cfg()):
        res = []
        for workers in (0,2):
            with warnings.catch_warnings(record=True) as ws, pytest.raises(ValueError) as e:
                warnings.simplefilter('always')
                collect_stats(dls(xs, cfg, workers))
            res.append((str(e.value),[(str(w.message),w.category) for w in ws if 'expected samples' in str(w.message)]))
        return res
    xs = [rng.normal(size=4000)*.1 for _ in range(20)]
    for i in (4,9,17): xs[i][2000] = np.nan
    a,b = told(xs)
    assert a==b and 'NaN or Inf in 3 clips: item 4 ' in a[0] and a[0].index('item 9')<a[0].index('item 17')
    xs = [rng.normal(size=4000)*.1 for _ in range(20)]; xs[10] = xs[10][:100]
    a,b = told(xs)
    assert a==b and 'shorter than one window' in a[0]
    xs = [rng.normal(size=4000)*3 for _ in range(20)]; xs[10][5] = np.nan
    a,b = told(xs, AudioConfig.VITS())
    assert a[0]==b[0] and 1<=len(a[1])<=2 and 1<=len(b[1])<=3  # each process tells it once for each place it is called from

def test_statistics_in_worker_processes_leave_the_random_state(synthetic):
    dls = _dls(synthetic, workers=2)
    random.seed(1); np.random.seed(1); torch.manual_seed(1)
    collect_stats(dls); a = random.random(),np.random.rand(),torch.rand(1).item()
    random.seed(1); np.random.seed(1); torch.manual_seed(1)
    assert a==(random.random(),np.random.rand(),torch.rand(1).item())
