"The report of an experiment: what is on the page, in a browser"
import io,json,re,shutil,sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np, pandas as pd, pytest
from specnorm_fastai.data import synthetic_audio
from specnorm_fastai.report import _audio,_command,_excerpt,_hardest,_load,_recalls,_shares,write_report
sys.path.insert(0, str(Path(__file__).parent))
from browser import Page,find_chromium,need_chromium

_spec = dict(none=1., **{'global':1.5}, frequency=1.35)

def make_results(out, ways=('none','global','frequency','pcen+global'), folds=2, seeds=3, labels=('dog','rain','sea waves','crying baby','clock tick'), n=80, epochs=8, audio=None, seed=0, f=64, t=150):
    "A folder as `compare` leaves it, with made-up but plausible numbers; returns it and the files' paths"
    rng,out = np.random.default_rng(seed),Path(out); out.mkdir(parents=True)
    labels,paths = list(labels),{}
    names = [p.name for p in sorted((audio/'audio').iterdir())][:n] if audio else [f'{i%folds+1}-{i:04d}-A.wav' for i in range(n)]
    n = len(names)
    if audio: paths = {m:audio/'audio'/m for m in names}
    lab,fold,ease = [labels[i%len(labels)] for i in range(n)],[str(i//len(labels)%folds+1) for i in range(n)],rng.normal(size=n)*1.6
    rows,preds,hist,cls = [],[],[],[]
    for j,w in enumerate(ways):
        skill = _spec.get(w, 1.1)+.02*j
        for k in dict.fromkeys(fold):
            for s in range(seeds):
                run,bump = [],rng.normal()*.2
                for i in (i for i in range(n) if fold[i]==k):
                    p = float(1/(1+np.exp(-skill-ease[i]-bump-rng.normal()*.7)))
                    ok = rng.random()<p
                    other = labels[(i%len(labels)+(1 if rng.random()<.7 else 2))%len(labels)]
                    run.append(dict(way=w, fold=k, seed=s, filename=names[i], label=lab[i], predicted=lab[i] if ok else other, probability=round(max(p,.4),6), p_label=round(p,6)))
                acc = np.mean([r['label']==r['predicted'] for r in run])
                rows.append(dict(way=w, fold=k, seed=s, accuracy=acc, loss=1.4-acc, seconds=round(40+5*rng.random()+8*('pcen' in w),2), n_train=n-len(run), n_valid=len(run), epochs=epochs))
                preds += run
                for e in range(epochs):
                    q = 1-np.exp(-(e+1)/epochs*2.5)
                    hist.append(dict(way=w, fold=k, seed=s, epoch=e+1, train_loss=1.6-1.4*q+rng.normal()*.04, valid_loss=1.6-(.5+acc)*q*.8+rng.normal()*.06, accuracy=np.clip(acc*q+rng.normal()*.02,0,1)))
                for l in labels:
                    d = [r for r in run if r['label']==l]
                    if d: cls.append(dict(way=w, fold=k, seed=s, label=l, clips=len(d), recall=np.mean([r['predicted']==l for r in d]), precision=.8, f1=.8))
    rows,preds = pd.DataFrame(rows),pd.DataFrame(preds)
    for nm,df in (('results',rows),('predictions',preds),('history',pd.DataFrame(hist)),('classes',pd.DataFrame(cls))): df.to_csv(out/f'{nm}.csv', index=False)
    ana,base = [],rows[rows.way==ways[0]].accuracy.to_numpy()
    for i,w in enumerate(ways):
        a = rows[rows.way==w].accuracy.to_numpy(); d,se = a.mean()-base.mean(),.012+(a-base).std()/len(a)**.5*1.3
        v = 'baseline' if i==0 else 'better' if d>2*se else 'worse' if d<-2*se else 'not established'
        ana.append(dict(way=w, runs=len(a), accuracy=a.mean(), low=a.mean()-.035, high=a.mean()+.035, **(dict() if i==0 else dict(diff=d, diff_low=d-2*se, diff_high=d+2*se, p=.004*i, p_holm=.004*i*3, boot_low=d-1.7*se, boot_high=d+1.7*se)),
            verdict=v, needs='about 40 more runs, or 900 more clips' if v=='not established' else '', why='the interval over clips holds zero' if v=='not established' else ''))
    pd.DataFrame(ana).to_csv(out/'analysis.csv', index=False)
    hz = 700*(10**(np.linspace(0, 2595*np.log10(1+8000/700), f)/2595)-1)
    tilt = -25-18*np.linspace(0,1,f)+4*np.sin(np.linspace(0,9,f))
    stats = {k:dict(freqs=hz.round(1).tolist(), mean=(tilt+rng.normal()*.4+rng.normal(size=f)*.2).tolist(), std=(14+3*np.cos(np.linspace(0,5,f))).tolist(), units='dB', **{'global':dict(mean=-34.2, std=16.9)}) for k in dict.fromkeys(fold)}
    (out/'stats.json').write_text(json.dumps(stats))
    m = min(len(labels), 5)
    before = np.stack([tilt[:,None]+rng.normal(size=(f,t))*6+25*np.exp(-(np.arange(f)[:,None]-12-4*i-8*np.sin(np.linspace(0,6+i,t)))**2/9)-30*(np.linspace(0,1,t)>.8) for i in range(m)]).astype(np.float32)
    arrays = {f'way:{w}': before if w=='none' else (before-before.mean())/before.std() if 'frequency' not in w else (before-before.mean((0,2),keepdims=True))/before.std((0,2),keepdims=True) for w in ways}
    np.savez(out/'examples.npz', filename=np.array(names[:m]), label=np.array(lab[:m]), seconds=np.full(m, 2.4), freqs=hz, before=before, **{k:v.astype(np.float32) for k,v in arrays.items()})
    settings = dict(data='/home/me/data/small pets', arch='small', features='mel', epochs=epochs, lr=.003, bs=32, duration=2.4, sample_rate=16000, clips=n, classes=len(labels))
    call = dict(ways=list(ways), runs=seeds, folds=list(dict.fromkeys(fold)), seed=0)
    versions = dict(specnorm_fastai='0.5.0', torch='2.11.0', fastai='2.8.12', python='3.11.2', device='cpu, 2 threads')
    (out/'results.json').write_text(json.dumps(dict(settings=settings, call=call, versions=versions, labels=labels, runs=rows.to_dict('records'))))
    return out,paths

_ids = ['table','runs','confusions','classes','training','statistics','spectrograms','errors','settings']

@pytest.fixture(scope='module')
def results(tmp_path_factory):
    tmp = tmp_path_factory.mktemp('report')
    out,files = make_results(tmp/'out', audio=synthetic_audio(tmp/'audio', n=80))
    return out,files,write_report(out, files)

@pytest.fixture(scope='module')
def page(results):
    need_chromium()
    with Page() as p: yield p

def test_the_page_is_there_whole_quiet_and_asks_for_nothing(results, page):
    page.errors.clear(); page.requests.clear()
    page.open(results[2])
    assert page.js("[...document.querySelectorAll('main>section')].map(s=>s.id)")==_ids
    assert page.js("document.documentElement.lang")=='en' and page.js("document.querySelectorAll('h1').length")==1
    page.wait("[...document.querySelectorAll('audio')].every(a=>a.readyState>0)")
    page.wait("[...document.images].every(i=>i.complete&&i.naturalWidth>0)")
    assert not page.external() and not page.failed and not page.errors
    assert results[2].stat().st_size<3_000_000

def test_ids_are_unique_and_pictures_have_words(results, page):
    page.open(results[2])
    assert page.js("[...document.querySelectorAll('[id]')].map(e=>e.id).filter((v,i,a)=>a.indexOf(v)!==i)")==[]
    assert page.js("[...document.images].filter(i=>!i.alt).length")==0
    assert page.js("[...document.querySelectorAll('svg[role=img],audio')].filter(i=>!i.getAttribute('aria-label')).length")==0
    assert page.js("[...document.querySelectorAll('[aria-labelledby]')].filter(i=>!document.getElementById(i.getAttribute('aria-labelledby'))).length")==0
    assert page.js("[...document.querySelectorAll('nav a')].filter(a=>!document.querySelector(a.getAttribute('href'))).length")==0

_col = "[...document.querySelectorAll('#table tbody tr')].map(r=>r.cells[{}].dataset.v)"

def test_a_click_and_a_key_sort_the_table(results, page):
    page.open(results[2])
    page.js("document.querySelectorAll('#table thead button')[1].click()")
    down = list(map(float, page.js(_col.format(1))))
    assert down==sorted(down, reverse=True) and page.js("document.querySelectorAll('#table thead th')[1].getAttribute('aria-sort')")=='descending'
    page.js("document.querySelectorAll('#table thead button')[1].focus()")
    page.key('Enter', vk=13, text='\r')
    assert list(map(float, page.js(_col.format(1))))==sorted(down)
    page.js("document.querySelectorAll('#table thead button')[5].click()")  # the baseline has no p: last
    assert page.js(_col.format(5))[-1]==''
    page.js("document.querySelectorAll('#table thead button')[0].click()")
    assert page.js(_col.format(0))==['frequency','global','none','pcen+global']

def test_the_matrix_follows_the_chosen_way(results, page):
    page.open(results[2])
    e = _load(results[0]); m = _shares(e)
    cells = lambda: np.array(page.js("[...document.querySelectorAll('#cm tbody td')].map(c=>+c.style.getPropertyValue('--v'))")).reshape(5,5)
    for i,w in enumerate(m):
        page.js(f"(s=>{{s.value='{i}';s.dispatchEvent(new Event('change'))}})(document.getElementById('cm-way'))")
        assert abs(cells()-m[w]/m[w].sum(1, keepdims=True)).max()<1e-3  # thousandths are kept
        assert page.js("document.getElementById('cm-name').textContent")==w
        assert page.js("[...document.querySelectorAll('[data-cm]')].filter(o=>!o.hidden).map(o=>o.dataset.cm)")==[str(i)]
    assert f"{100*(m[w]/m[w].sum(1, keepdims=True))[0,0]:.1f} %" in page.js("document.querySelector('#cm tbody td').title")

def test_a_way_can_be_hidden_in_the_charts_and_shown_again(results, page):
    page.open(results[2])
    shown = "[...document.querySelectorAll('.two .pl [data-w=\"1\"]')].filter(o=>getComputedStyle(o).display!=='none').length"
    n = page.js(shown)
    page.js("document.querySelector('[data-toggle=\"1\"]').click()")
    assert n>0 and page.js(shown)==0 and page.js("[...document.querySelectorAll('[data-toggle=\"1\"]')].map(o=>o.getAttribute('aria-pressed'))")==['false']*2
    page.js("document.querySelector('[data-toggle=\"1\"]').click()")
    assert page.js(shown)==n

def test_sounds_play(results, page):
    page.open(results[2])
    page.wait("[...document.querySelectorAll('audio')].every(a=>a.readyState>0)")
    secs = page.js("[...document.querySelectorAll('audio')].map(a=>a.duration)")
    names = page.js("[...document.querySelectorAll('audio')].map(a=>a.getAttribute('aria-label'))")
    assert len(secs)==12
    for s,n in zip(secs, names): assert abs(s-len(_excerpt(results[1][n])[0])/16000)<.2, n  # MP3 pads to whole frames of 36 ms and adds a delay
    page.js("document.querySelector('audio').play()")
    page.wait("document.querySelector('audio').currentTime>0")

@pytest.mark.parametrize('width', [360,768,1400])
@pytest.mark.parametrize('scheme', ['light','dark'])
def test_nothing_sticks_out(results, page, width, scheme):
    page.resize(width, 900, scheme); page.open(results[2])
    assert page.js("document.documentElement.scrollWidth")<=width
    out = page.js(f"""[...document.querySelectorAll('body *')].filter(o=>{{const r=o.getBoundingClientRect(); return r.width&&r.right>{width}+1&&!o.closest('.scroll,nav,.vh,svg')}}).map(o=>o.tagName+'.'+o.className).slice(0,5)""")
    assert out==[]
    light = page.js("getComputedStyle(document.body).backgroundColor")=='rgb(255, 255, 255)'
    assert light==(scheme=='light')
    page.resize(1200)

def test_it_prints(results, page):
    page.open(results[2])
    assert page.pdf()[:4]==b'%PDF'

_evil = '"><img src=x onerror="document.title=\'got you\'"><script>document.title="got you"</script>\'&amp;</style></title>'

def test_names_cannot_become_html(tmp_path):
    "Ways, classes, files, folds, settings and notes, with HTML, other scripts, directions and half a character in them"
    labels = ['犬 🐕',_evil,'</script><script>document.title="got you"</script>','كلب','NA']
    out,_ = make_results(tmp_path/'out', ways=('none',_evil,'größer+ведро','</select>'), labels=labels, n=20, epochs=2, seeds=2)
    for f in ('predictions','analysis'):
        df = pd.read_csv(out/f'{f}.csv', dtype=str, keep_default_na=False)
        if f=='predictions': df.filename = [_evil+'\u202e'+n for n in df.filename]
        else: df.needs = _evil
        df.to_csv(out/f'{f}.csv', index=False)
    info = json.loads((out/'results.json').read_text()); info['settings'].update(data='/data/'+_evil, note=_evil, half='\ud800'); info['versions'][_evil] = _evil
    (out/'results.json').write_text(json.dumps(info))
    path = write_report(out)
    class Tags(HTMLParser):
        def __init__(self): super().__init__(); self.seen = []
        def handle_starttag(self, tag, attrs): self.seen.append((tag,dict(attrs)))
    tags = Tags(); tags.feed(path.read_text())
    assert not any(k.startswith('on') for _,a in tags.seen for k in a)
    assert sum(t=='script' for t,_ in tags.seen)==2 and not any(a.get('src','data:')[:5]!='data:' for _,a in tags.seen)
    assert '\u202e' not in path.read_text() and '犬 🐕' in path.read_text()
    need_chromium()
    with Page() as p:
        p.open(path); p.js("document.querySelectorAll('#table thead button')[0].click()")
        p.js("(s=>{s.selectedIndex=1;s.dispatchEvent(new Event('change'))})(document.getElementById('cm-way'))")
        assert p.js("document.title").startswith('Normalizing') and not p.errors and not p.external()
        assert p.js("document.getElementById('cm-name').textContent")==_evil and 'NA' in p.js("document.getElementById('cm').textContent")

@pytest.mark.parametrize('gone,left', [('predictions.csv',{'confusions','errors'}), ('history.csv',{'training'}), ('stats.json',{'statistics'}), ('examples.npz',{'spectrograms'}), ('analysis.csv',set()), ('classes.csv',set())])
def test_what_is_missing_is_left_out_and_told(tmp_path, results, gone, left):
    out = shutil.copytree(results[0], tmp_path/'out'); (out/gone).unlink()
    text = write_report(out).read_text()
    assert re.findall(r'<section id="(\w+)"', text)==[i for i in _ids if i not in left] and f'<code>{gone}</code> (it is not in the folder)' in text

def test_an_older_folder_of_runs_alone(tmp_path, results):
    for f in ('results.json','results.csv'): (tmp_path/f).write_bytes((results[0]/f).read_bytes())
    rows = pd.read_csv(tmp_path/'results.csv')[['way','fold','seed','epochs','accuracy','seconds']]; rows.to_csv(tmp_path/'results.csv', index=False)
    text = write_report(tmp_path).read_text()
    assert re.findall(r'<section id="(\w+)"', text)==['table','runs','settings'] and 'was not analysed' in text

@pytest.mark.parametrize('file,data,why', [('predictions.csv',b'a,b\n1,2\n','no column'), ('examples.npz',b'PK\3\4 cut','could not be read'), ('stats.json',b'{','could not be read'), ('history.csv',b'way,epoch\n','no rows')])
def test_a_broken_file_is_left_out_and_told(tmp_path, results, file, data, why):
    out = shutil.copytree(results[0], tmp_path/'out'); (out/file).write_bytes(data)
    assert why in write_report(out).read_text()

def test_bad_arguments_are_named(tmp_path, results):
    with pytest.raises(ValueError, match='out: expected the folder of an experiment'): write_report(tmp_path)
    for bad in (-1,2.5,True,'3'):
        with pytest.raises(ValueError, match='max_errors: expected'): write_report(results[0], max_errors=bad)
    with pytest.raises(TypeError, match='files: expected a dict'): write_report(results[0], files=['a.wav'])
    (tmp_path/'results.json').write_text('[]'); (tmp_path/'results.csv').write_text('way,fold\n')
    with pytest.raises(ValueError, match='results.json is not of an experiment'): write_report(tmp_path)

def test_the_summary_tells_of_members_and_test_clips(tmp_path, results):
    out = shutil.copytree(results[0], tmp_path/'out')
    for k in ('analysis','predictions','history','classes'): (out/f'{k}.csv').unlink()
    r = pd.read_csv(out/'results.csv'); r.assign(fold='test', n_train=300, n_valid=40).to_csv(out/'results.csv', index=False)
    d = json.loads((out/'results.json').read_text()); d['settings'].update(members=5, clips=340); (out/'results.json').write_text(json.dumps(d))
    page = write_report(out).read_text()
    assert 'each on the test clips with' in page and 'a run is the mean of 5 networks; 8 epochs a network' in page
    assert '<dt>clips trained on</dt><dd>300</dd>' in page and '<dt>predicted</dt><dd>40</dd>' in page and '<dt>clips</dt><dd>3' not in page
    assert 'a run is the mean' not in results[2].read_text() and '<dt>clips</dt><dd>80</dd>' in results[2].read_text()

def test_a_report_is_written_whole_or_not(tmp_path, results, monkeypatch):
    out = shutil.copytree(results[0], tmp_path/'out'); old = (out/'report.html').read_bytes()
    def fail(*a): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(Path, 'write_bytes', fail)
    with pytest.raises(OSError, match='cannot write .*No space left'): write_report(out)
    monkeypatch.undo()
    assert (out/'report.html').read_bytes()==old and not list(out.glob('.specnorm*'))

def test_the_same_folder_gives_the_same_page(results):
    one = write_report(results[0], results[1]).read_bytes()
    assert write_report(results[0], results[1]).read_bytes()==one

@pytest.mark.parametrize('kw', [dict(ways=('none','global'), folds=1, seeds=1, epochs=1, n=10, labels=('a','b')), dict(ways=('pcen',), folds=1, seeds=2, n=10, labels=('a','b'))])
def test_one_run_one_epoch_one_way(tmp_path, kw):
    path = write_report(make_results(tmp_path/'out', **kw)[0])
    assert 'nan' not in re.sub(r'<style>.*?</style>|data:[^"]*', '', path.read_text(), flags=re.S).lower()

def test_many_ways_classes_and_folds_stay_small(tmp_path):
    "12 ways, 10 folds, 50 classes, and spectrograms of 1025 rows: bounded, and nothing sticks out"
    ways = 'none global frequency item item_frequency bands sliding running robust minmax ast pcen+global'.split()
    out,_ = make_results(tmp_path/'out', ways=ways, folds=10, seeds=1, n=500, epochs=5, labels=[f'class number {i}' for i in range(50)], f=1025, t=400)
    path = write_report(out)
    assert path.stat().st_size<6_000_000
    need_chromium()
    with Page(360) as p:
        p.open(path)
        assert p.js("document.documentElement.scrollWidth")<=360 and not p.errors

def test_numbers_on_the_page_are_those_of_the_tables(results):
    e = _load(results[0])
    rec,n = _recalls(e)
    p = e.predictions.assign(hit=e.predictions.label==e.predictions.predicted)
    by = p.groupby(['way','label']).hit.mean().unstack('way')
    assert abs(rec[by.columns]-by).to_numpy().max()<1e-12 and n.sum()==80
    h,said,ways = _hardest(e, 6)
    for f,r in h.iterrows():
        d = p[p.filename==f]
        assert (r.wrong,r.runs)==((~d.hit).sum(),len(d)) and said[f].sum()==len(d) and sum(a for a,_ in ways[f].values())==r.wrong
        assert ((~p.hit).groupby(p.filename).mean()>r.wrong/r.runs).sum()<6

def test_what_is_played_is_the_middle_at_an_even_level(tmp_path):
    import soundfile as sf, base64
    x = np.zeros((10*22050,2)); x[:,0] = .001*np.sin(2*np.pi*440*np.arange(len(x))/22050)
    sf.write(tmp_path/'a.wav', x, 22050, subtype='FLOAT')
    y,start = _excerpt(tmp_path/'a.wav')
    assert start==2 and abs(len(y)-96000)<=1
    data = _audio(y); z,sr = sf.read(io.BytesIO(base64.b64decode(data.split(',')[1])))
    assert sr==16000 and z.ndim==1 and abs(abs(z[4000:-4000]).max()-.0005*31.6)<.002 and len(data)<45_000  # raised by 30 dB at most
    assert _audio(np.zeros(1600, np.float32)).startswith('data:audio/')

def test_the_command_is_the_one_that_was_given(results):
    e = _load(results[0])
    cmd = _command(e)
    assert cmd.startswith("specnorm-compare --data '/home/me/data/small pets' --out out --ways none global frequency pcen+global --arch small --runs 3") and '--fold all' in cmd
    e.info['command'] = ['specnorm-compare','--data','a b']
    assert _command(e)=="specnorm-compare --data 'a b'"

def test_the_browser_tells_of_errors_and_requests(tmp_path):
    "The helper sees what it is there to see"
    need_chromium()
    (tmp_path/'a.html').write_text('<script>console.error("one");setTimeout(()=>{throw Error("two")})</script><img src="http://127.0.0.1:9/x.png">')
    with Page() as p:
        p.open(tmp_path/'a.html'); p.wait("document.readyState==='complete'")
        p.js("new Promise(r=>setTimeout(r,100))")
        assert any('one' in s for s in p.errors) and any('two' in s for s in p.errors) and p.external()==['http://127.0.0.1:9/x.png'] and p.failed
        with pytest.raises(RuntimeError, match='oops'): p.js("(()=>{throw Error('oops')})()")

def test_the_browser_is_named_by_the_environment(monkeypatch):
    monkeypatch.setenv('CHROMIUM', '/nowhere/chromium')
    assert find_chromium() is None
