"The demo: what it makes of good and bad clips as functions, and the page itself in a browser"
import os,signal,socket,subprocess,sys,time
from pathlib import Path

import numpy as np, pytest, soundfile as sf, torch
from specnorm_fastai.core import AudioTensor,get_audio_files
from specnorm_fastai.data import AudioPadType,DownmixMono,Resample,ResizeSignal
from specnorm_fastai.demo import ClipLog,SpecDemo,analyse,clip_deviation,demo_page,describe_clip,drift_html,missing_ways,prediction_html,read_clip,spec_figure,stats_figure,wave_figure,ways_figure,main
from specnorm_fastai.features import AudioConfig,AudioToMFCC,AudioToSpec
from specnorm_fastai.frontend import SpecFrontend
from specnorm_fastai.learner import spec_model
from specnorm_fastai.share import Prediction,SpecModel,save_spec_model
from specnorm_fastai.stats import collect_stats
sys.path.insert(0, str(Path(__file__).parent))
from browser import Page,need_chromium

root = Path(__file__).parents[1]
cfg = AudioConfig.BasicMelSpectrogram(n_fft=512, hop_length=256, n_mels=32, sample_rate=16000)

@pytest.fixture(scope='module')
def files(synthetic): return sorted(get_audio_files(synthetic))

@pytest.fixture(scope='module')
def stats(files): return collect_stats(files[20:], tfms=[Resample(16000), DownmixMono(), AudioToSpec.from_cfg(cfg)])

@pytest.fixture(scope='module')
def model(stats):
    torch.manual_seed(0)
    front = SpecFrontend(cfg, 16000, stats, 'frequency', mono=True, clip_samples=12000)
    return SpecModel(front, spec_model('small', 3, 1), ['dog','<b>cat</b>','owl'], stats=stats)

def tone(n=8000, sr=16000, c=1, seed=0):
    g = np.random.default_rng(seed)
    return (.3*np.sin(np.arange(n)*.2)[:,None]+.02*g.standard_normal((n,c))).astype(np.float32)

def _write(path, kind):
    if kind=='text': path.write_text('no sound at all')
    elif kind=='empty': path.touch()
    elif kind=='header only': sf.write(path, tone(0), 16000)
    elif kind=='truncated': sf.write(path, tone(), 16000); path.write_bytes(path.read_bytes()[:-5000])
    elif kind=='nan': x = tone(); x[77] = np.nan; sf.write(path, x, 16000, subtype='FLOAT')
    elif kind=='silence': sf.write(path, tone()*0, 16000)
    elif kind=='constant': sf.write(path, tone()*0+.5, 16000)
    elif kind=='one sample': sf.write(path, tone(1), 16000)
    elif kind=='too long': sf.write(path, tone(16000*3), 16000)
    elif kind=='too large': sf.write(path, tone(60000), 48000, subtype='FLOAT')
    elif kind=='channels': sf.write(path, tone(c=9), 16000)
    elif kind=='rate': sf.write(path, tone(100), 500_000)
    return path

bad = dict(text='cannot read', empty='empty audio file (0 bytes)', truncated='truncated audio file', nan='NaN or Inf in 1 of 8000 samples', silence='silent clip: expected sound')
bad.update({'constant':'every frame of it is silent or constant', 'header only':'no audio samples', 'one sample':'clip too short: expected at least', 'too long':'clip too long: expected at most 2 s, got 3 s', 'too large':'file too large: expected at most 0.2 MB, got 0.24',
            'channels':'too many channels: expected at most 8, got 9', 'rate':'sample rate: expected at most 384000 Hz, got 500000 Hz'})

@pytest.mark.parametrize('kind', bad)
def test_a_bad_clip_gives_one_message_that_names_it_and_nothing_else(kind, tmp_path):
    path = _write(tmp_path/'clip.wav', kind)
    res = analyse(path, SpecDemo(), max_seconds=2, max_mb=.2)
    assert bad[kind] in res['message'] and 'role="alert"' in res['message'] and 'Traceback' not in res['message']
    assert str(tmp_path) not in res['message']  # where uploads lie is nobody's business
    assert not any(v for k,v in res.items() if k!='message')

def test_size_and_length_are_judged_before_anything_is_decoded(tmp_path, monkeypatch):
    def never(*a, **k): raise AssertionError('decoded')
    monkeypatch.setattr(AudioTensor, 'create', never)
    with pytest.raises(ValueError, match='max_seconds: expected a clip of at most 2 s, got 3 s'): read_clip(_write(tmp_path/'a.wav', 'too long'), max_seconds=2)
    with pytest.raises(ValueError, match='max_mb: expected a file of at most 0.2 MB, got 0.2401 MB'): read_clip(_write(tmp_path/'b.wav', 'too large'), max_mb=.2)
    with pytest.raises(AssertionError, match='decoded'): read_clip(_write(tmp_path/'c.wav', 'too long'))

@pytest.mark.parametrize('v', [0, -1, float('nan'), True, 'x'])
def test_bounds_are_checked(v, files):
    with pytest.raises(ValueError, match='max_seconds: expected a number above 0'): read_clip(files[0], max_seconds=v)
    with pytest.raises(ValueError, match='max_mb: expected a number above 0'): read_clip(files[0], max_mb=v)

def test_a_wrong_argument_is_named_with_what_was_expected_and_what_came(files, stats):
    view = describe_clip(read_clip(files[0]), SpecDemo(stats=stats))
    for f,msg in [(lambda: read_clip(3), 'path: expected the path of an audio file, got int'), (lambda: analyse(3, SpecDemo()), 'path: expected the path of an audio file, got int'),
        (lambda: analyse(files[0], 3), 'demo: expected a SpecDemo, got int'), (lambda: analyse(files[0], SpecDemo(), 3), 'log: expected a ClipLog, got int'),
        (lambda: describe_clip(3), 'x: expected an AudioTensor, got int; read_clip reads a file'), (lambda: describe_clip(view.wave, 0), 'demo: expected a SpecDemo, got int'),
        (lambda: ClipLog(3), 'reference: expected SpecStats, got int'), (lambda: ClipLog(stats).add(3), 'view: expected a ClipView, got int'), (lambda: demo_page(0), 'demo: expected a SpecDemo, got int'),
        (lambda: clip_deviation(3, view.stats), 'reference: expected SpecStats, got int'), (lambda: clip_deviation(stats, 3), 'stats: expected SpecStats, got int'),
        *((lambda f=f: f(3), 'view: expected a ClipView, got int') for f in (wave_figure, spec_figure, ways_figure, stats_figure, drift_html))]:
        with pytest.raises(TypeError) as e: f()
        assert str(e.value)==msg
    for v in (0, 1, 'x', True, float('nan')):
        with pytest.raises(ValueError, match=f'level: expected a number between 0 and 1, got {v!r}'): clip_deviation(stats, view.stats, level=v)
    for v in (0, -1, 2., 'x', True):
        with pytest.raises(ValueError, match=f'ncols: expected a whole number above 0, got {v!r}'): ways_figure(view, ncols=v)
    with pytest.raises(ValueError, match='max_mb: expected a number above 0, got \'x\''): demo_page(max_mb='x')
    with pytest.raises(ValueError, match='^x: expected finite samples, got NaN or Inf in 9000 of 9000 samples$'): describe_clip(AudioTensor(torch.full((1,9000), torch.nan), sr=16000))
    with pytest.raises(ValueError, match=r'^x: clip too short: expected at least 1024 samples \(64 ms at 16000 Hz\), got 9$'): describe_clip(AudioTensor(torch.ones(1,9), sr=16000))

def test_a_view_has_documented_fields_and_needs_them_all(files):
    from fastcore.docments import docments
    from specnorm_fastai.demo import ClipView
    docs,view = {k:v for k,v in docments(ClipView.__init__).items() if k not in ('self','return')},describe_clip(read_clip(files[0]))
    assert list(docs)==list(vars(view)) and all(docs.values()), docs
    with pytest.raises(TypeError, match='missing .* required'): ClipView(name='x')

@pytest.mark.parametrize('sr,c,fmt', [(8000,1,'wav'),(44100,2,'flac'),(48000,6,'wav'),(22050,2,'ogg')])
def test_any_rate_channels_and_format_is_described(sr, c, fmt, tmp_path, stats):
    sf.write(tmp_path/f'a.{fmt}', tone(sr, c=c), sr)
    view = describe_clip(read_clip(tmp_path/f'a.{fmt}'), SpecDemo(stats=stats))
    assert list(view.ways)==['none','global','frequency','robust','item','item_frequency','minmax','db_max','sliding','pcen'] and not view.left_out
    assert view.wave.nchannels==c and view.feats.shape[0]==1 and all(w.spec.shape==view.raw.shape for w in view.ways.values())

def test_statistics_are_the_train_sets_where_there_are_some_else_the_clips(files, stats):
    x = read_clip(files[0])
    a,b = describe_clip(x, SpecDemo(stats=stats)),describe_clip(x)
    y = (a.raw.plain().double()-stats.mean[0])/stats.std[0]
    assert torch.allclose(a.ways['frequency'].spec.plain().double(), y, atol=1e-4) and a.whose=="the train set's"  # float32 of dB
    real = b.ways['frequency'].spec.plain()[...,~b.raw.silent]
    assert torch.allclose(real.mean(-1), torch.zeros(1), atol=1e-4) and b.whose.startswith("the clip's own (there is neither")
    assert torch.allclose(a.ways['none'].spec.plain(), a.raw.plain())

@pytest.mark.parametrize('by', ['front end','resize'])
def test_a_short_clips_input_is_padded_as_the_model_pads_it(by, tmp_path, model, stats):
    if by=='resize':  # then the clip comes padded, and the front end is told where its sound ends
        front = SpecFrontend(cfg, 16000, stats, 'frequency', mono=True)
        model = SpecModel(front, model.model, model.vocab, stats=stats, resize=ResizeSignal(750, AudioPadType.Zeros_After))
    sf.write(tmp_path/'short.wav', tone(8000), 16000)
    x = read_clip(tmp_path/'short.wav')
    c,view = model.clip(x),describe_clip(x, SpecDemo(model))
    assert (int(c.real_lengths),c.nsamples)==(8000,12000 if by=='resize' else 8000)
    feats = lambda n: model.frontend(c.plain()[None], n)[0].as_subclass(torch.Tensor)
    with torch.inference_mode(): want,wrong = feats(torch.tensor([8000])),feats(torch.tensor([6000]))
    got = view.ways['model'].spec.plain()
    assert got.shape[-1]==1+12000//256 and torch.allclose(got, want, atol=1e-5) and not torch.allclose(got, wrong, atol=1e-2)
    if by=='resize':
        with torch.inference_mode(): assert not torch.allclose(got, feats(None), atol=1e-2)
    assert torch.equal(view.prediction.probabilities, model.predict(tmp_path/'short.wav').probabilities)

def test_a_models_answer_and_input_are_its_own(files, model):
    demo,x = SpecDemo(model),read_clip(files[1])
    view,c = describe_clip(x, demo),model.clip(x)
    assert int(c.real_lengths)==c.nsamples==12000
    assert torch.equal(view.prediction.probabilities, model.predict(files[1]).probabilities)
    with torch.inference_mode(): want = model.frontend(c.plain()[None])[0]
    assert torch.allclose(view.ways['model'].spec.plain(), want.as_subclass(torch.Tensor), atol=1e-5)
    assert view.reference is model.stats and view.ways['none'].spec.settings['n_mels']==32
    res = analyse(files[1], demo)
    assert '&lt;b&gt;cat' in res['prediction'] and '<b>cat' not in res['prediction'] and res['ways']['model'].count('data:image/png')==1

def test_a_clip_of_which_the_model_hears_a_part_is_told_of_on_the_page_alone(model, tmp_path, recwarn):
    for n,part in ((12000,False),(30000,True)):
        sf.write(tmp_path/'x.wav', tone(n), 16000)
        pred = describe_clip(read_clip(tmp_path/'x.wav'), SpecDemo(model)).prediction
        assert ('The model hears 0.75 s of a clip; the rest of this one was left out.' in prediction_html(pred))==part
    assert not [w for w in recwarn if 'is longer than' in str(w.message)]  # whose message would name the upload in a log

def test_a_model_without_statistics_says_so(model, files):
    bare = SpecModel(model.frontend, model.model, model.vocab)
    view = describe_clip(read_clip(files[1]), SpecDemo(bare))
    assert view.reference is None and "came without its train set's statistics" in view.whose and 'model' in view.ways
    assert 'Nothing to compare' in analyse(files[1], SpecDemo(bare))['drift']

def test_statistics_of_another_pipeline_are_refused(model, files):
    other = collect_stats(files[:30], tfms=[Resample(16000), DownmixMono(), AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_fft=1024, n_mels=32))])
    with pytest.raises(ValueError, match='another pipeline.*\n.*hop_length'): SpecDemo(model, other)
    with pytest.raises(TypeError, match='model: expected a SpecModel, got str'): SpecDemo('folder')
    with pytest.raises(TypeError, match='stats: expected SpecStats, got str'): SpecDemo(stats='file')

def test_channels_that_are_not_mixed_down_must_be_there(tmp_path):
    for i in range(30): sf.write(tmp_path/f'{i}.wav', tone(c=2, seed=i), 16000)
    demo = SpecDemo(stats=collect_stats(sorted(tmp_path.glob('*.wav')), tfms=[AudioToSpec.from_cfg(cfg)]))
    assert demo.channels==2 and describe_clip(read_clip(tmp_path/'0.wav'), demo).feats.shape[0]==2
    assert len(analyse(tmp_path/'0.wav', demo)['ways'])==10
    sf.write(tmp_path/'mono.wav', tone(), 16000)
    assert 'channels: expected 2, which this pipeline does not mix down, got 1' in analyse(tmp_path/'mono.wav', demo)['message']

def test_what_does_not_apply_is_named_with_its_reason(files):
    few = collect_stats(files[20:60], tfms=[Resample(16000), DownmixMono(), AudioToMFCC(n_mfcc=13, melkwargs=dict(n_fft=512, n_mels=32))], quantiles=False)
    res = analyse(files[0], SpecDemo(stats=few))
    assert 'pcen: it starts from power, and cepstra have none' in res['left_out'] and 'robust: these statistics hold no histograms' in res['left_out'] and 'db_max' in res['left_out']
    assert 'pcen' not in res['ways'] and 'global' in res['ways']

def test_a_clip_of_the_train_sets_kind_is_usual_and_one_far_off_is_not(files, stats):
    demo = SpecDemo(stats=stats)
    held = [clip_deviation(stats, describe_clip(read_clip(f), demo).stats) for f in files[:20]]
    assert sum(map(bool, held))<=1  # level .99: of 20 clips one in five times
    far = [clip_deviation(stats, describe_clip(AudioTensor(read_clip(f)*1e-4), demo).stats) for f in files[:5]]
    assert all(far) and all('quieter' in ' '.join(d.reasons) for d in far)
    assert all(d.loudest<-d.limit for d in far)

def test_a_gain_shifts_the_deviation_by_its_decibels(files, stats):
    demo,x = SpecDemo(stats=stats),read_clip(files[0])
    a,b = (clip_deviation(stats, describe_clip(AudioTensor(x*g), demo).stats) for g in (1,.1))
    n = int(stats._peak[0].sum()); spread = (stats.standard_error()*(n+1)**.5)[0,...,0].numpy()
    assert np.allclose(a.rows-b.rows, 20/spread, atol=1e-3)  # float32 of dB

def test_too_few_clips_in_the_reference_are_no_ground_to_judge(files):
    few = collect_stats(files[:8], tfms=[Resample(16000), DownmixMono(), AudioToSpec.from_cfg(cfg)])
    res = analyse(files[9], SpecDemo(stats=few), ClipLog(few))
    assert 'cannot be compared' in res['drift'] and 'at least 20 clips' in res['drift'] and res['ways']

def test_the_same_clip_counts_once_and_twenty_give_a_verdict(files, stats):
    demo,log = SpecDemo(stats=stats),ClipLog(stats)
    for _ in range(2): assert log.add(describe_clip(read_clip(files[0]), demo)) is None
    assert log.n==1
    for f in files[1:20]: verdict = log.add(describe_clip(AudioTensor(read_clip(f)*.05), demo))
    assert log.n==20 and verdict
    assert '20 different clips so far: DRIFT' in analyse(files[0], demo, log)['drift']

def test_silence_between_sounds_and_extremes_make_finite_pictures(stats, tmp_path):
    x = tone(16000); x[4000:9000] = 0
    for k,v in {'gap':x, 'clipped':np.sign(x), 'tiny':x*1e-7, 'impulse':np.eye(16000, 1, -5000, dtype=np.float32)}.items():
        sf.write(tmp_path/f'{k}.wav', v, 16000, subtype='FLOAT')
        res = analyse(tmp_path/f'{k}.wav', SpecDemo(stats=stats))
        assert len(res['ways'])==10 and not res['left_out'] and 'alert' not in res['message'], (k, res['message'], res['left_out'])

def test_pictures_have_seconds_hertz_and_units(files, stats):
    view = describe_clip(read_clip(files[0]), SpecDemo(stats=stats))
    for fig in (spec_figure(view), spec_figure(view, 'pcen')):
        ax,bar = fig.axes
        assert (ax.get_xlabel(),ax.get_ylabel())==('time (s)','frequency (Hz)') and (bar.get_ylabel() or 'dB' in bar.yaxis.get_major_formatter()(1., 0))
    assert wave_figure(view).axes[-1].get_xlabel()=='time (s)' and stats_figure(view).axes[0].get_ylabel()=='dB'
    assert len([a for a in ways_figure(view).axes if a.images])==len(view.ways)
    with pytest.raises(ValueError, match="way: expected one of .*got 'nope'"): spec_figure(view, 'nope')

def test_names_are_escaped(tmp_path, stats):
    sf.write(tmp_path/'<img src=x onerror=alert(1)>.wav', tone(), 16000)
    for p in ('<img src=x onerror=alert(1)>.wav','<i>.wav'):
        assert '<i' not in analyse(tmp_path/p, SpecDemo())['message']
    assert '<script' not in prediction_html(Prediction(('<script>',), torch.tensor([.9]), ['<script>']))

def test_real_clips_are_described(esc10, fsdd):
    for d in (esc10,fsdd):
        for f in sorted(get_audio_files(d))[:3]:
            res = analyse(f, SpecDemo())
            assert len(res['ways'])==10 and 'alert' not in res['message']

@pytest.mark.parametrize('argv,want', [(['nowhere'],'path: no such folder: nowhere'), (['--stats','no.json'],'no such statistics file: no.json'), (['--host','no.such.host.invalid'],"--host: no such address: 'no.such.host.invalid'"), (['--host','192.0.2.1'],"--host: cannot listen on '192.0.2.1'")])
def test_what_is_wrong_is_one_message(argv, want, capsys):
    assert main(argv)==1
    err = capsys.readouterr().err
    assert f'specnorm-demo: error: {want}' in err and 'Traceback' not in err

@pytest.mark.parametrize('argv,want', [(['--port','0'],"--port: expected a number from 1 to 65535, got '0'"), (['--port','x'],"--port: expected"), (['--port','65536'],'--port: expected'), (['--max-seconds','-1'],"--max-seconds: expected a number above 0, got '-1'"),
    (['--max-mb','nan'],"--max-mb: expected a number above 0, got 'nan'"), (['--threshold','-1'],"--threshold: expected a number of std, 0 or more, got '-1'"), (['--threshold','inf'],'--threshold: expected')])
def test_bad_values_end_as_those_of_argparse(argv, want, capsys):
    with pytest.raises(SystemExit) as e: main(argv)
    assert e.value.code==2 and f'specnorm-demo: error: argument {want}' in capsys.readouterr().err

def test_a_taken_port_is_named_with_another_one(capsys):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0)); s.listen(); port = s.getsockname()[1]
        assert main(['--port', str(port)])==1
    err = capsys.readouterr().err
    assert f'specnorm-demo: error: --port: {port} is taken by another program' in err and f'--port {port+1 if port<65535 else 7860}' in err and 'GRADIO' not in err

@pytest.mark.parametrize('host', ['::1','127.0.0.2'])
def test_a_port_that_is_taken_on_127_0_0_1_is_named_for_other_hosts_too(host, capsys):
    try:
        with socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET) as s: s.bind((host, 0))
    except OSError as e: pytest.skip(f'{host}: {e}')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0)); s.listen(); port = s.getsockname()[1]
        assert main(['--host', host, '--port', str(port)])==1
    err = capsys.readouterr().err
    assert f'specnorm-demo: error: --port: {port} is taken by another program on 127.0.0.1' in err and 'GRADIO' not in err

def test_ways_that_the_statistics_cannot_give_are_not_offered(files, stats):
    gr = pytest.importorskip('gradio', reason="the page needs gradio: pip install '.[demo]'")
    tfms = [Resample(16000), DownmixMono(), AudioToSpec.from_cfg(cfg)]
    plain = SpecDemo(stats=collect_stats(files[20:60], tfms=tfms, quantiles=False))
    cepstra = SpecDemo(stats=collect_stats(files[20:60], tfms=[Resample(16000), DownmixMono(), AudioToMFCC(n_mfcc=13, melkwargs=dict(n_fft=512, n_mels=32))]))
    assert missing_ways(SpecDemo(stats=stats))==missing_ways(SpecDemo())=={} and list(missing_ways(plain))==['robust'] and list(missing_ways(cepstra))==['db_max','pcen']
    for demo,gone in ((plain,['robust']),(cepstra,['db_max','pcen']),(SpecDemo(stats=stats),[])):
        blocks = demo_page(demo).blocks.values()
        radio = next(b for b in blocks if isinstance(b, gr.Radio))
        keys = [k for _,k in radio.choices]
        assert not set(keys)&set(gone) and len(keys)+len(gone)==10 and radio.value=='global'
        note = [b.value for b in blocks if isinstance(b, gr.HTML) and b.elem_id=='sn-missing']
        assert len(note)==bool(gone) and all(why in note[0].replace('&#x27;', "'") for why in missing_ways(demo).values())

def test_the_threshold_of_drift_is_that_which_is_given(files, stats):
    demo,said = SpecDemo(stats=stats),[]
    for threshold in (0.,.1,50.):
        log = ClipLog(stats)
        for f in files[:19]: log.add(describe_clip(AudioTensor(read_clip(f)*.05), demo))
        said.append(bool(log.add(describe_clip(AudioTensor(read_clip(files[19])*.05), demo), threshold)))
        assert f"21 different clips so far: {'DRIFT' if said[-1] else 'no drift shown'}" in analyse(files[0], demo, log, threshold=threshold)['drift']
    assert said==[True,True,False]
    for v in (-1, float('nan'), True, 'x'):
        with pytest.raises(ValueError, match='threshold: expected a number of std, 0 or more'): demo_page(threshold=v)
        with pytest.raises(ValueError, match='threshold: expected a number of std, 0 or more'): analyse(files[0], demo, threshold=v)

def test_a_prediction_of_silence_says_so(tmp_path, model):
    x = tone(40000); x[8000:-8000] = 0
    sf.write(tmp_path/'gap.wav', x, 16000)
    assert 'digital silence' in analyse(tmp_path/'gap.wav', SpecDemo(model))['prediction']
    sf.write(tmp_path/'full.wav', tone(40000), 16000)
    assert 'silence' not in analyse(tmp_path/'full.wav', SpecDemo(model))['prediction']

def test_without_gradio_the_message_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    old = dict(os.environ)
    try: assert main([])==1
    finally: os.environ.clear(); os.environ.update(old)
    assert "install the extra 'demo': pip install '.[demo]' in a clone" in capsys.readouterr().err

# the page

_server = '''import os,sys
out = open(sys.argv[1], 'a', buffering=1)
def hook(name, args):
    if name=='socket.connect' and isinstance(args[1], tuple): out.write(f'{args[1][0]}\\n')
    elif name=='socket.getaddrinfo': out.write(f'{args[0]}\\n')
sys.addaudithook(hook)
import specnorm_fastai.demo as demo
for k in ('_sweep','_keep_file','_keep_state'): setattr(demo, k, int(os.environ.get('TEST'+k, getattr(demo, k))))
sys.exit(demo.main(sys.argv[2:]))'''

def _free_port():
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); return s.getsockname()[1]

class Server:
    "`specnorm-demo` as a process, every address that it looks up or connects to written down"
    def __init__(self, tmp, *args, **times):
        self.log,self.tmp,self.port = tmp/'asked.txt',tmp/'tmp',_free_port(); self.tmp.mkdir(); self.log.touch()
        env = {**os.environ, 'TMPDIR':str(self.tmp), 'PYTHONPATH':str(root), **{'TEST'+k:str(v) for k,v in times.items()}}
        for k in ('http_proxy','https_proxy','HTTP_PROXY','HTTPS_PROXY','ALL_PROXY','all_proxy'): env.pop(k, None)
        self.err = open(tmp/'err.txt', 'w+')
        self.proc = subprocess.Popen([sys.executable,'-c',_server,str(self.log),'--port',str(self.port),*map(str, args)], cwd=root, env=env, stdout=subprocess.DEVNULL, stderr=self.err)
        self.url,end = f'http://127.0.0.1:{self.port}/',time.time()+120
        while True:
            try: socket.create_connection(('127.0.0.1',self.port), 1).close(); return
            except OSError:
                if self.proc.poll() is not None or time.time()>end: self.proc.kill(); raise RuntimeError(Path(self.err.name).read_text()[-2000:])
                time.sleep(.2)
    def folders(self): return list(self.tmp.glob('specnorm-demo-*'))
    def stop(self):
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
            try: self.proc.wait(30)
            except subprocess.TimeoutExpired: self.proc.kill(); self.proc.wait()
        return self.proc.returncode

@pytest.fixture(scope='module')
def server(tmp_path_factory, model):
    pytest.importorskip('gradio', reason="the page needs gradio: pip install '.[demo]'")
    need_chromium()
    tmp = tmp_path_factory.mktemp('demo')
    s = Server(tmp, save_spec_model(model, tmp/'model'), '--max-seconds', '8', '--max-mb', '1')
    yield s
    s.stop()

@pytest.fixture
def page(server):
    with Page() as p:
        p.open(server.url); p.wait("!!document.querySelector('#sn-clip input[type=file]')", 60)
        yield p

def upload(p, path):
    node = p.cdp('DOM.querySelector', nodeId=p.cdp('DOM.getDocument')['root']['nodeId'], selector='#sn-clip input[type=file]')['nodeId']
    p.cdp('DOM.setFileInputFiles', nodeId=node, files=[str(path)])

def text(p, sel): return p.js(f"document.querySelector('{sel}').innerText")

def show(p, path):
    upload(p, path)
    p.wait("document.querySelectorAll('#sn-ways img').length==11 && !!document.querySelector('#sn-drift').innerText", 90)

def _at_home(p, server): return [u for u in p.external() if not u.startswith(server.url)]

def test_a_clip_is_uploaded_seen_and_normalized_in_the_browser(page, server, files):
    show(page, files[3])
    assert files[3].name in text(page, '#sn-message') and 'Prediction: ' in text(page, '#sn-prediction') and '<b>cat</b>' in text(page, '#sn-prediction')
    assert text(page, '#sn-one').startswith('Global') and 'One clip is little evidence' in text(page, '#sn-drift')
    src = page.js("document.querySelector('#sn-one img').src")
    page.js("[...document.querySelectorAll('#sn-way label')].find(l => l.innerText.trim()=='PCEN').click()")
    page.wait("document.querySelector('#sn-one').innerText.startsWith('PCEN')")
    assert page.js("document.querySelector('#sn-one img').src")!=src
    assert page.js("[...document.querySelectorAll('.sn-fig img')].every(i => i.complete && i.naturalWidth>300 && i.alt)")
    assert not page.errors and not page.failed
    assert not _at_home(page, server)

def test_a_real_clip_is_uploaded(page, server, esc10):
    show(page, sorted(get_audio_files(esc10))[0])
    assert '5 s, 44100 Hz' in text(page, '#sn-message') and not page.errors and not _at_home(page, server)

@pytest.mark.parametrize('kind,want', [('text','cannot read clip.wav as audio'), ('silence','silent clip'), ('one sample','clip too short'), ('truncated','truncated audio file clip.wav')])
def test_a_bad_upload_shows_its_message(kind, want, page, tmp_path):
    upload(page, _write(tmp_path/'clip.wav', kind))
    page.wait("document.querySelector('#sn-message').innerText.includes('cannot be used')", 60)
    assert want in text(page, '#sn-message') and 'Traceback' not in page.js("document.body.innerText")
    assert not page.js("!!document.querySelector('#sn-ways img')")

def test_a_bad_upload_takes_away_what_was_shown_before(page, files, tmp_path):
    show(page, files[2])
    page.js("document.querySelector('#sn-clip button[aria-label=Clear]').click()")
    page.wait("!document.querySelector('#sn-message').innerText.trim() && !!document.querySelector('#sn-clip input[type=file]')", 30)
    upload(page, _write(tmp_path/'clip.wav', 'nan'))
    page.wait("document.querySelector('#sn-message').innerText.includes('NaN or Inf')", 60)
    assert not page.js("[...document.querySelectorAll('#sn-ways img')].some(i => i.offsetParent)")

def test_a_file_over_the_limit_is_not_taken_in(page, server, tmp_path):
    sf.write(tmp_path/'large.wav', tone(700_000), 48000)
    upload(page, tmp_path/'large.wav')
    page.wait("/exceed|too large|maximum/i.test(document.body.innerText)", 60)
    assert not [f for d in server.folders() for f in d.rglob('large.wav')]

@pytest.mark.parametrize('width', [390, 1280])
def test_nothing_is_wider_than_the_screen(width, page, files):
    page.resize(width, 844)
    show(page, files[4])
    assert page.js("document.documentElement.scrollWidth")<=width
    assert page.js("[...document.querySelectorAll('.sn-fig, .sn-box, #sn-way label')].filter(e => e.offsetParent).every(e => { const r = e.getBoundingClientRect(); return r.left>=0 && r.right<=innerWidth })")

def test_a_file_outside_the_uploads_is_not_served(server):
    import urllib.error,urllib.request
    for path in (root/'README.md','/etc/passwd'):
        with pytest.raises(urllib.error.HTTPError) as e: urllib.request.urlopen(f'{server.url}gradio_api/file={path}', timeout=20)
        assert e.value.code in (403,404)

def test_the_page_says_how_long_it_keeps_what():
    gr = pytest.importorskip('gradio', reason="the page needs gradio: pip install '.[demo]'")
    page = demo_page()
    assert page.delete_cache==(60,15*60) and [b.time_to_live for b in page.blocks.values() if isinstance(b, gr.State)]==[3600,3600]
    said = "The file is removed after 15 minutes; its pictures and statistics are kept for this visitor up to an hour."
    assert said in next(b.value for b in page.blocks.values() if isinstance(b, gr.HTML))
    assert said in (root/'nbs/92_demo.ipynb').read_text()

def test_an_upload_is_removed_when_its_time_is_over(tmp_path, files):
    pytest.importorskip('gradio', reason="the page needs gradio: pip install '.[demo]'")
    need_chromium()
    s = Server(tmp_path, _sweep=1, _keep_file=8)
    kept = lambda: [f for d in s.folders() for f in d.rglob('*.wav')]
    try:
        with Page() as p:
            p.open(s.url); p.wait("!!document.querySelector('#sn-clip input[type=file]')", 60)
            upload(p, files[5])
            end = time.time()+60
            while not kept() and time.time()<end: time.sleep(.1)
            assert kept()
            p.wait("document.querySelectorAll('#sn-ways img').length==10", 90)
            while kept() and time.time()<end: time.sleep(.5)
            assert not kept() and p.js("document.querySelectorAll('#sn-ways img').length")==10
    finally: s.stop()

def test_the_server_listens_on_loopback_only_and_leaves_nothing(tmp_path):
    pytest.importorskip('gradio', reason="the page needs gradio: pip install '.[demo]'")
    s = Server(tmp_path)
    try:
        import urllib.request
        assert b'specnorm demo' in urllib.request.urlopen(s.url, timeout=20).read()
        home = socket.gethostbyname(socket.gethostname())
        if not home.startswith('127.'):
            with pytest.raises(OSError): socket.create_connection((home, s.port), 3)
        assert s.folders()
        time.sleep(3)  # what asks for news does so in a thread
    finally: code = s.stop()
    assert code==130 and not s.folders()
    assert {*s.log.read_text().split()}<={'127.0.0.1','localhost','::1','None'}
