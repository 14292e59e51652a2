"""Run experiments, keep their results and write experiments/RESULTS.md from them

    python tools/results.py run ESC10=DIR FSDD=DIR [NAME ...]  # what the recipes say, those of NAME or all, into results-recipes/NAME; then keep and write
    python tools/results.py pause NAME [OUT]                   # pack the finished runs of results-recipes/NAME, or OUT, into experiments/NAME/runs.tar.xz, then write
    python tools/results.py experiments/esc10-ways.toml OUT    # keep what the recipe gave in OUT, then write
    python tools/results.py                                    # write again

A run that was stopped goes on where it was, or from the packed runs where there is nothing in results-recipes/NAME. A recipe whose data are not given is left out, and told of.
tools/datasets.py makes the folders of data.
"""
import io,json,lzma,re,shlex,subprocess,sys,tarfile,tempfile
from collections import Counter
from pathlib import Path
try: import pandas as pd
except ImportError: sys.exit(f"{sys.executable} has no pandas: run this with the Python that has the package, .venv/bin/python if you used make")

root = Path(__file__).resolve().parent.parent
here = root/'experiments'
made = 'results-recipes'  # not the folder of `make compare`, which is emptied now and then
packed = 'runs.tar.xz'
_key = ['way','fold','seed']
_kept = [*_key,'accuracy','balanced_accuracy','loss','n_train','n_valid','seconds','started']
_shown = ['way','runs','accuracy','low','high','diff','diff_low','diff_high','p_holm','boot_low','boot_high','here','verdict','needs','why']
_tables = {'results.csv':_kept, 'analysis.csv':_shown, 'conditions-analysis.csv':['condition',*_shown]}
_text = {'way','fold','condition','started','here','verdict','needs','why','data','settings'}  # other columns hold numbers
_maybe = {'balanced_accuracy','loss',*_shown[3:11],'needs','why'}  # may be empty

def first_words(recipe):
    "What a recipe is for, and its command"
    says = [l[2:] if l.startswith('# ') else l[1:] for l in recipe.read_text().splitlines() if l.startswith('#')]
    return says[0],next(l.strip() for l in says if 'specnorm-compare' in l)

def number(recipe):
    "The first experiment that a recipe is for: E3 comes before E4, and what has no number last"
    m = re.match(r'E(\d+)', first_words(recipe)[0])
    return int(m[1]) if m else 99,recipe.stem

def recipes(): return sorted(here.glob('*.toml'), key=number)

def own(recipe):
    "The recipe of a name or a path; it stands in experiments/"
    r = here/f'{Path(recipe).stem}.toml'
    if not r.is_file() or Path(recipe).suffix not in ('','.toml') or Path(recipe).is_file() and not r.samefile(recipe):
        raise ValueError(f"{recipe}: expected a recipe among {[r.stem for r in recipes()]} of {here}")
    return r

def table(file):
    "A csv file; a name such as NA is one"
    names = {'way','fold','condition'}
    return pd.read_csv(file, dtype={'fold':str}, keep_default_na=False, na_values={c:[''] for c in pd.read_csv(file, nrows=0).columns if c not in names})

def checked(t, cols, where):
    "A table whose columns are there and hold what they are to"
    if gone:=[c for c in cols if c not in t]: raise ValueError(f"{where}: expected the columns {cols}, there is no {gone[0]!r}")
    for c in cols:
        lo,hi = -1 if 'condition' in cols else 0,1 if c=='accuracy' else sys.float_info.max
        fits = lambda v: isinstance(v, str) or c in _maybe and v!=v if c in _text else type(v) in (int,float) and (c in _maybe or lo<=v<=hi)
        if bad:=[(i,v) for i,v in enumerate(t[c].tolist()) if not fits(v)]:
            i,v = min(bad, key=lambda b: isinstance(b[1], str) and re.fullmatch(r'[-+.\de]+', b[1]) is not None)  # a number is text where another value of its column is
            raise ValueError(f"{where}: expected {'text' if c in _text else f'a number from {lo} to 1' if c=='accuracy' else 'a number'} in column {c!r}, got {v!r} in row {i+1+(Path(where).suffix=='.csv')}")
    return t

def read(file, cols):
    "A csv file that has these columns"
    try: t = table(file)
    except (ValueError,OSError) as e: raise ValueError(f"{file}: expected a table ({e})") from None
    return checked(t, cols, file)

def shown(file):
    "A csv file whose names can stand in a Markdown table"
    df = table(file)
    names = [c for c in ('way','condition','fold') if c in df]
    return df.assign(**{c:df[c].str.replace('|', r'\|', regex=False) for c in names})

def command(recipe, data, to):
    "What runs a recipe on these folders, as words; None where its data are not among them"
    words = shlex.split(first_words(recipe)[1])[1:]
    at = lambda k: words.index(k)+1
    if (name:=words[at('--data')]) not in data: return
    words[at('--data')],words[at('--recipe')],words[at('--out')] = str(data[name]),str(recipe),str(to/recipe.stem)
    return [sys.executable, '-c', 'import sys; from specnorm_fastai.cli import compare; sys.exit(compare())', *words]

def _python():
    "The Python that this runs on, as one would type it"
    p = Path(sys.executable)
    return str(p.relative_to(root)) if p.is_relative_to(root) else 'python'

def status(words):
    "Run a command, which Ctrl-C reaches too; its exit status"
    with subprocess.Popen(words, cwd=root) as p:
        try: return p.wait()
        except KeyboardInterrupt: return p.wait() or 130

def run(args):
    "Run recipes one after the other, and keep what each gives"
    data,names = dict(a.split('=', 1) for a in args if '=' in a),[a for a in args if '=' not in a]
    if bad:=[k for k in data if k not in ('ESC10','FSDD')]: raise ValueError(f"{bad[0]}: expected ESC10=DIR or FSDD=DIR")
    data = {k:Path(v).expanduser().resolve() for k,v in data.items()}
    if bad:=[f'{k}={v}' for k,v in data.items() if not v.is_dir()]: raise ValueError(f"{bad[0]}: expected a folder")
    if bad:=sorted(set(names)-{r.stem for r in recipes()}): raise ValueError(f"{bad[0]}: expected a recipe among {[r.stem for r in recipes()]}")
    if not data: raise ValueError("Expected the folder of a data set: ESC10=DIR, FSDD=DIR or both")
    failed,page = [],None
    for r in (r for r in recipes() if not names or r.stem in names):
        out = root/made/r.stem
        if (words:=command(r, data, out.parent)) is None: print(f"{r.stem}: left out, its data are not given"); continue
        print(f"{r.stem}: {first_words(r)[0]}", flush=True)
        try:
            unpack(r, out)
            if (code:=status(words))==130:
                some = any((out/'runs').glob('*.json'))
                print('Stopped. The same command '+(f"goes on; {_python()} tools/results.py pause {r.stem} packs the finished runs" if some else "begins anew: no run was finished")); sys.exit(130)
            if code: raise ValueError(f"{r.stem}: specnorm-compare ended with status {code}")
            keep(r, out)
        except ValueError as e: print(e, file=sys.stderr, flush=True); failed.append(r.stem); continue
        try: write(); page = None
        except ValueError as e: page = e  # of another recipe, whose turn may come
    if failed or page: raise ValueError('. '.join([f"Failed: {', '.join(failed)}"]*bool(failed)+[f"RESULTS.md is not written: {page}"]*bool(page)))

def plan(recipe):
    "The arguments that a recipe and its command give, and all settings of its runs"
    from specnorm_fastai.cli import _parser
    from specnorm_fastai.compare import _arguments
    args = vars(_parser().parse_args(shlex.split(first_words(recipe)[1])[1:]))
    if args['fold'] is not None and len(args['fold'])==1: args['fold'] = args['fold'][0]
    call,s = _arguments({**{k:v for k,v in args.items() if k not in ('data','test_data','out','cache')}, 'recipe':recipe}, False)
    return json.loads(json.dumps(call)),json.loads(json.dumps(s))

def settled(info):
    "All settings of a results.json; what it does not tell is the default"
    from specnorm_fastai.compare import _setting_defaults
    return {**_setting_defaults, 'arms':{}, **info['settings']}

def runs_of(recipe, info, where, part=False):
    "The runs that a recipe consists of, as (way, fold, seed); raises where the settings that are noted in a results.json are not its own. Of a part the folds may be others: then None stands for each"
    call,want = plan(recipe)
    def fill(s, of):  # the duration of the longest clip, where the recipe has none
        if s.get('duration', 0) is None: s['duration'] = of.get('duration')
    try:
        was,got = info['call'],settled(info)
        folds,names = [str(f) for f in was['folds']],set(was['ways'])
        fill(want, got)
        for n,a in want['arms'].items(): fill(a, got['arms'].get(n, {}))
    except (KeyError,TypeError,AttributeError) as e: raise ValueError(f"{where}: expected the results.json of an experiment ({e!r})") from None
    diff = [(k, got.get(k), v) for k,v in want.items() if got.get(k)!=v]
    diff += [(k, was.get(k), call[k]) for k in ('label_col','fold_col','test_col') if was.get(k)!=call[k]]
    diff += [('ways', sorted(names), sorted(call['ways']))]*(names!=set(call['ways']))
    diff += [('baseline', was.get('baseline'), call['baseline'])]*(None not in (was.get('baseline'),call['baseline']) and was['baseline']!=call['baseline'])
    listed = lambda f: f if f in (None,'all') else [str(v) for v in (f if isinstance(f, list) else [f])]
    if part and call['fold']=='all' and was.get('fold')!='all': folds = [None]  # how many there are is not known
    else: diff += [('fold', was.get('fold'), call['fold'])]*(listed(was.get('fold'))!=listed(call['fold']))
    diff += [('test_data', was.get('test_data'), None)]*(was.get('test_data') is not None)
    if diff: raise ValueError(f"{where}: is not of {recipe.name}: "+'; '.join(f"{k} is {json.dumps(a)}, the recipe says {json.dumps(b)}" for k,a,b in diff)+(". The recipe's command goes on with them" if diff[0][0]=='fold' else ''))
    return [(w,f,k) for w in call['ways'] for f in folds for k in range(call['seed'], call['seed']+call['runs'])]

def info_of(text, file):
    "What a results.json tells, with the names of folders alone"
    try:
        info = json.loads(text)
        s,call,v = (dict(info[k]) for k in ('settings','call','versions'))
        if gone:={'arch','epochs','precision','clips','classes'}-set(s): raise KeyError(*sorted(gone)[:1])
        if not s['clips']>0: raise ValueError(f"clips is {s['clips']}")
        return dict(settings=s, call={**call, **{k:Path(f).name if (f:=call.get(k)) else None for k in ('data','test_data')}}, versions=v, labels=info['labels'])
    except (ValueError,KeyError,TypeError) as e: raise ValueError(f"{file}: expected the results.json of an experiment ({e!r})") from None

def read_info(out):
    "What a folder of `specnorm-compare` was made with"
    if not out.is_dir(): raise ValueError(f"{out}: expected a folder that specnorm-compare wrote, there is none")
    if not (file:=out/'results.json').is_file(): raise ValueError(f"{out}: expected a folder that specnorm-compare wrote, there is no results.json")
    return info_of(file.read_bytes(), file)

def noted(info):
    "What is kept of a results.json: nothing in it names a folder of this machine"
    return json.dumps(info, indent=1)+'\n'

def compared(there, want, recipe, out):
    "Raise where there are runs that a recipe does not have"
    if more:=[k for k in there if k not in want and (k[0],None,k[2]) not in want]: raise ValueError(f"{out}: holds {many(len(more), 'run')} that {recipe.name} does not have, such as {', '.join(map(str, more[0]))}")

def whole(recipe, d):
    "The results.json, the tables and the runs of a folder; raises where these are not all runs of a recipe, or do not fit each other"
    info = read_info(d)
    want,conds = runs_of(recipe, info, d),list(info['settings'].get('conditions') or ())
    todo = "Run the recipe anew and keep that, or delete the folder" if d==here/recipe.stem else "The recipe's command goes on with it"
    names = list(_tables)[:2+bool(conds)]
    if gone:=[n for n in names if not (d/n).is_file()]: raise ValueError(f"{d}: there is no {gone[0]}, so the experiment is not done. {todo}")
    if more:=[n for n in _tables if n not in names and (d/n).exists()]: raise ValueError(f"{d/more[0]}: expected none, as {recipe.name} has no conditions. Delete it")
    tables = {n:read(d/n, _tables[n]) for n in names}
    rows = tables['results.csv']
    compared(done:=list(zip(rows.way, rows.fold, rows.seed)), want, recipe, d)
    if Counter(done)!=Counter(want): raise ValueError(f"{d}: {len(set(done))} of {len(want)} runs are done{', some twice'*(len(set(done))<len(done))}. {todo}")
    ways = rows.groupby('way').accuracy
    means,said = ways.mean(),lambda rs: ', '.join(f"{k} of {w}"+f" under {c}"*bool(c) for c,w,k in list(rs)[:3]) or 'none'
    for n in names[1:]:
        t,cs = (tables[n],[*conds,'all, against clean']) if n in names[2:] else (tables[n].assign(condition=''),[''])
        at,every = Counter(zip(t.condition, t.way, t.runs)),Counter((c,w,k) for c in cs for w,k in ways.size().items())
        if at!=every: raise ValueError(f"{d/n}: expected {said(every-at)} runs, got {said(at-every)}. {todo}")
        if len(cs)>1: means = t[t.condition!=cs[-1]].groupby('way').accuracy.mean()-means
        got = t[t.condition==cs[-1]].set_index('way').accuracy
        if bad:=[w for w in got.index if abs(got[w]-means[w])>1e-5]: raise ValueError(f"{d/n}: expected {means[bad[0]]:.6f} as accuracy of {bad[0]}{' under '*bool(cs[-1])}{cs[-1]}, which the runs give, got {got[bad[0]]}. {todo}")
    return info,tables,want

def runs_in(out, info, want, recipe):
    "The rows of the finished runs in a folder, which are of a recipe"
    from specnorm_fastai.compare import _load_runs
    done = _load_runs(out, settled(info))
    if not done: raise ValueError(f"{out/'runs'}: expected finished runs, there is none")
    compared(done, want, recipe, out)
    return checked(pd.DataFrame([d['row'] for d in done.values()]), _kept, out/'runs')

def keep(recipe, out):
    "Copy the tables of an experiment beside its recipe, if all of its runs are done; what names a folder of this machine stays behind"
    from specnorm_fastai.compare import _write
    recipe,out = own(recipe),Path(out).expanduser()
    info,tables,want = whole(recipe, out)
    rows = tables['results.csv']
    told,there = (t.set_index(_key).accuracy.to_dict() for t in (rows,runs_in(out, info, want, recipe)))
    if bad:=[k for k in want if k not in there or abs(told[k]-there[k])>1e-9]:
        raise ValueError(f"{out/'results.csv'}: expected the runs in {out/'runs'}, got {told[bad[0]]} as accuracy of {', '.join(map(str, bad[0]))}, which is {there.get(bad[0], 'not')} there. The recipe's command writes it again")
    to = here/recipe.stem
    to.mkdir(exist_ok=True)
    _write(to/'results.json', noted(info))
    for n,t in {**tables, 'results.csv':rows[_kept]}.items(): _write(to/n, t.round(6).to_csv(index=False))
    if 'conditions-analysis.csv' not in tables: (to/'conditions-analysis.csv').unlink(missing_ok=True)
    (to/packed).unlink(missing_ok=True)

def pack(files):
    "A tar.xz of contents by name, without times and owners"
    buf = io.BytesIO()
    with tarfile.open(fileobj=buf, mode='w', format=tarfile.PAX_FORMAT) as t:
        for n in sorted(files):
            i = tarfile.TarInfo(n)
            i.size = len(files[n])
            t.addfile(i, io.BytesIO(files[n]))
    return lzma.compress(buf.getvalue(), preset=9)

def contents(file):
    "What `pack` packed"
    try:
        with tarfile.open(file, 'r:xz') as t: res = {m.name:t.extractfile(m).read() if m.isfile() else None for m in t}
        json.loads(res['results.json'])
    except (tarfile.TarError,lzma.LZMAError,EOFError,OSError,KeyError,ValueError,TypeError) as e: raise ValueError(f"{file}: expected what results.py pause packed ({type(e).__name__}: {e})") from None
    if bad:=[n for n,v in res.items() if v is None or not re.fullmatch(r'results\.json|runs/[^/\\]+\.json', n)]: raise ValueError(f"{file}: expected results.json and runs/*.json, got {bad[0]!r}")
    return res

def kept(recipe, info):
    "The runs of tables that are kept, are whole and were made with the settings of a results.json"
    try: was,_,runs = whole(recipe, here/recipe.stem)
    except ValueError: return set()
    return set(runs) if settled(was)==settled(info) else set()

def pause(recipe, out=None):
    "Pack the finished runs of a recipe, so that another machine or another day goes on from them"
    from specnorm_fastai.core import _whole_file
    recipe = own(recipe)
    out = root/made/recipe.stem if out is None else Path(out).expanduser()
    info = read_info(out)
    want = runs_of(recipe, info, out, part=True)
    rows = runs_in(out, info, want, recipe)
    if set(zip(rows.way, rows.fold, rows.seed))<=kept(recipe, info): raise ValueError(f"{here/recipe.stem}: holds the tables of {recipe.name}, done with these settings, so there is nothing to pack. Delete it to make them anew")
    files = {'results.json':noted(info).encode(), **{f'runs/{f.name}':f.read_bytes() for f in (out/'runs').glob('*.json')}}
    file = here/recipe.stem/packed
    if file.exists() and (lost:=sorted(set(contents(file))-set(files))):
        raise ValueError(f"{file}: holds {many(len(lost), 'run')} that {out} has not, such as {lost[0]}. Delete it if they are not wanted; to go on from them, begin without {root/made/recipe.stem}")
    file.parent.mkdir(exist_ok=True)
    with _whole_file(file) as tmp: Path(tmp).write_bytes(pack(files))
    print(f"{file}: {so_many(len(rows), want)}")

def so_many(n, want): return many(n, 'run') if want[0][1] is None else f"{n} of {many(len(want), 'run')}"

def spread(files, out):
    "Write those of an archive's files that a folder does not have, each whole, results.json last"
    from specnorm_fastai.compare import _write
    (out/'runs').mkdir(parents=True, exist_ok=True)
    for n in sorted(files, reverse=True):
        if not (out/n).exists(): _write(out/n, files[n].decode('utf8'))

def archive(recipe):
    "The packed runs of a recipe: files, results.json, rows, and the runs that there are to be; raises where they are not of it"
    files = contents(file:=here/recipe.stem/packed)
    info = info_of(files['results.json'], file)
    want = runs_of(recipe, info, file, part=True)
    with tempfile.TemporaryDirectory() as tmp:
        try: spread(files, Path(tmp)); return files,info,runs_in(Path(tmp), info, want, recipe),want
        except ValueError as e: raise ValueError(f"{file}: expected what results.py pause packed ({str(e).replace(tmp, file.name)})") from None

def unpack(recipe, out):
    "The packed runs of a recipe, into a folder without a results.json: there is nothing of it, or part of these as unpacking was stopped"
    if not (here/recipe.stem/packed).exists() or (out/'results.json').exists(): return
    files,_,rows,_ = archive(recipe)
    spread(files, out)
    print(f"{recipe.stem}: goes on from {many(len(rows), 'run')} of {here/recipe.stem/packed}", flush=True)

def pct(v, sign=''): return '' if pd.isna(v) else f'{100*v:{sign}.1f}'.replace('-', '−')
def span(lo, hi, sign=''): return '' if pd.isna(lo) else f'{pct(lo, sign)} to {pct(hi, sign)}'
def p_value(v): return '' if pd.isna(v) else '< 0.001' if v<.001 else f'{v:.3f}'

def many(n, what): return f"{n} {what}{'' if n==1 else 's'}"

def altered(conds):
    "What conditions do to a clip that silences part of it"
    for k,says in (('keep','the loudest stretch of each clip, {} s, is kept and padded to the length of the others (setting `keep`).'),
                   ('silence','the first and last part of each clip, {} s together, are set to 0 (setting `silence`). Some clips lose all of their sound, so that nothing can reach 100 %.')):
        for n,how in conds.items():
            if k in how: yield f"*{n}*: {says.format(how[k])}"

def conditions(df, s, clean):
    "The accuracy of each way under each condition, and what is lost on average over all of them"
    ways,names = list(clean.way),[c for c in df.condition.unique() if not c.startswith('all, ')]
    acc = df.pivot_table(index='condition', columns='way', values='accuracy', sort=False)
    word = df.set_index(['condition','way']).verdict
    mark = lambda c,w: {'better':' ↑', 'worse':' ↓'}.get(word.get((c,w)), '')
    lines = ['The same networks on the held-out clips under other conditions, accuracy in %; ↑ or ↓ where the difference to the first way is established under that condition (both tests, adjusted over ways, not over conditions):', '',
             '| condition | '+' | '.join(ways)+' |', '|---|'+'---|'*len(ways), '| clean clips | '+' | '.join(pct(clean.set_index('way').accuracy[w]) for w in ways)+' |']
    lines += [f"| {c} | "+' | '.join(pct(acc.loc[c,w])+mark(c,w) for w in ways)+' |' for c in names]
    lines.append(f"| mean of these {len(names)}, not tested | "+' | '.join(pct(acc.loc[names,w].mean()) for w in ways)+' |')
    every = df[df.condition.str.startswith('all, ')].set_index('way')
    lines += [f'\n{how}' for how in altered(s['conditions'])]
    lines += ['', 'What is lost on average over all of these conditions, in percentage points, and how that differs from the first way:', '',
              '| way | change | 95 % interval | difference | corrected t | clips and runs | p (Holm) | verdict |', '|---|---|---|---|---|---|---|---|']
    return lines+[f"| {w} | {pct(r.accuracy, '+')} | {span(r.low, r.high, '+')} | {pct(r['diff'], '+')} | {span(r.diff_low, r.diff_high, '+')} | {span(r.boot_low, r.boot_high, '+')} | {p_value(r.p_holm)} | "
                  f"{dict(better='loses less', worse='loses more').get(r.verdict, r.verdict)} |" for w,r in ((w,every.loc[w]) for w in ways)]

def tested(rows, s):
    "How many clips were left out in all folds together, where these are not all"
    n = int(rows.groupby('fold').n_valid.first().sum())
    return f'{n} of them tested' if n<s['clips'] else ''

def unsettled(rest, others):
    "What would settle the ways of which nothing is established"
    what,needs = f"What is not established{' of the others' if others else ''}",[str(r['needs']) for r in rest]
    if any(n.startswith('more runs') for n in needs): return f"{what} may be so for want of runs: one in each fold does not tell how much they vary."
    few = [f"{r['way']} {n}" for r,n in zip(rest, needs) if n.startswith('about ')]
    if few: return f"{what} would take, for differences as large as these: {'; '.join(few)}{'; for the rest more clips' if len(few)<len(rest) else ''}."
    return f"{what} cannot be settled on these clips, however many runs are made: with differences this small it would take more clips."

def section(d):
    "One experiment in Markdown"
    rows,analysis = shown(d/'results.csv'),shown(d/'analysis.csv')
    info,recipe = json.loads((d/'results.json').read_text()),here/f'{d.name}.toml'
    s,v = info['settings'],info['versions']
    purpose,cmd = first_words(recipe)
    nets = f" of {s['members']} networks" if s.get('members', 1)>1 else ''
    some = f', {n}' if (n:=tested(rows, s)) else ''
    on = f' ({p})' if (p:=v.get('processor')) else ''
    lines = [f'## {d.name}', '', purpose.rstrip(':')+('' if purpose.endswith('.') else '.'), '', '```sh', cmd, '```', '',
        f"{s['clips']} clips of {s['classes']} classes{some}; {many(rows.fold.nunique(), 'fold')}, {many(rows.seed.nunique(), 'seed')}, {many(len(rows), 'run')}{nets}, {rows.seconds.sum()/60:.0f} min of training (median {rows.seconds.median():.0f} s a run); "
        f"network `{s['arch']}`, {s['epochs']} epochs, {s['precision']}. torch {v.get('torch')}, fastai {v.get('fastai')}, {str(v.get('device')).replace(' 1 threads', ' 1 thread')}{on}. {rows.started.min()[:10]}.", '',
        '| way | runs | accuracy % | 95 % interval | difference | corrected t | clips and runs | p (Holm) | on these clips | verdict |', '|---|---|---|---|---|---|---|---|---|---|']
    for r in analysis.to_dict('records'):
        lines.append(f"| {r['way']} | {r['runs']} | {pct(r['accuracy'])} | {span(r['low'], r['high'])} | {pct(r['diff'], '+')} | {span(r['diff_low'], r['diff_high'], '+')} | "
            f"{span(r['boot_low'], r['boot_high'], '+')} | {p_value(r['p_holm'])} | {'' if r['verdict']=='baseline' else r['here']} | {r['verdict']} |")
    by = rows.pivot_table(index='way', columns='fold', values='accuracy', sort=False)
    if len(by.columns)>1:
        lines += ['', 'Mean accuracy on each fold that was held out, %:', '', '| way | '+' | '.join(map(str, by.columns))+' |', '|---|'+'---|'*len(by.columns)]
        lines += [f"| {w} | "+' | '.join(pct(x) for x in r)+' |' for w,r in zip(by.index, by.to_numpy())]
    found = lambda r: bool({r['here'],r['verdict']}&{'better','worse'})
    said = [r for r in analysis.to_dict('records') if found(r)]
    if said: lines += ['', *[f"- **{r['way']}**: {r['why']}."+(f" To settle it: {r['needs']}." if isinstance(r['needs'], str) else '') for r in said]]
    if rest:=[r for r in analysis.to_dict('records') if r['verdict']!='baseline' and not found(r)]: lines += ['', unsettled(rest, bool(said))]
    if (f:=d/'conditions-analysis.csv').exists(): lines += ['', *conditions(shown(f), s, analysis)]
    note = here/f'{d.name}.md'
    return '\n'.join(lines)+('\n\n'+note.read_text().strip() if note.exists() else '')

head = """# Results

Written by `python tools/results.py` from the tables beside it; every run of the recipes as they stand is in them{packed}. The questions, each with what was found:
"""

reading = """## How to read the tables

Differences are to the first way, in percentage points. *Corrected t* is the interval of the corrected resampled t-test over runs and train sets, *clips and runs* that of the bootstrap, each 95 % by itself. *p* is the larger of the two, after Holm's adjustment for the number of ways, so both intervals can leave out 0 and p still be above 0.05. The *verdict* goes by p. *On these clips* is the verdict of the bootstrap alone, about networks trained on just these clips: what it calls better or worse may be so because of the clips that were trained on. *Not established* does not mean that there is no difference. [75_analysis](../nbs/75_analysis.ipynb) explains the tests and measures how often they are wrong.

On one machine, with the same versions and number of threads, a seed gives the same run to the bit. Another processor or version rounds sums differently, and single runs, of some 80 clips, then differ by a few points; that is why means are published, with their intervals. esc10-ways and esc10-mask were run when validating still drew random numbers, so that the same ways of both, which validated every 5 and every 4 epochs, differ by up to 5 points in a run, and by 0.4 in the mean.

The ways ([45_ways_tfms](../nbs/45_ways_tfms.ipynb) has more on each):

{ways}

item, item_frequency, item_mean, bands, minmax and sliding also fill silence and padding (`FillFrames`), as `mask` says. The others, PCEN among them, do not, unless `fill` follows.

A recipe can set options of a way: `db_max` goes down to 50 dB in best, and `floor80` to `floor30` of esc10-floor and fsdd-ways are `db_max` down to so many.
"""

data = """## The data

`ESC10` is [ESC-10](https://github.com/karolpiczak/ESC-50), the rows of ESC-50 whose column `esc10` is true: 400 clips of 5 s, 10 classes, five folds. Its licence is CC BY 3.0 (that of ESC-50 as a whole CC BY-NC 3.0), and the file LICENSE of ESC-50 names the author and the licence of each clip's recording: CC0, CC BY and, for two, Sampling+. Folds 1 to 4 were available, 320 clips, in Ogg Vorbis as ESC-10 was first published. ESC-50 now holds the same recordings as WAV, cut to 5 s, so that single runs come out differently.

`FSDD` is the [Free Spoken Digit Dataset](https://github.com/Jakobovski/free-spoken-digit-dataset): ten digits, 50 times each by six speakers, at 8 kHz, CC BY-SA 4.0. Five speakers were available, 2500 clips, of commit `26eb9aa`.

Fold 5 and the sixth speaker are kept unseen, to check what comes out. Without the options that leave them out, the tables change.

```sh
python -c "from specnorm_fastai.all import *; print(untar_data(URLs.ESC50))"  # 600 MB, for example into ~/.fastai/data/master
python tools/datasets.py esc10 ~/.fastai/data/master ESC10 --folds 1 2 3 4
git clone https://github.com/Jakobovski/free-spoken-digit-dataset
python tools/datasets.py fsdd free-spoken-digit-dataset FSDD --speakers george jackson lucas nicolas theo
make results ARGS='ESC10=ESC10 FSDD=FSDD'                                     # all recipes, many hours; stopped, it goes on where it was
```"""

def ways():
    "Each way in a line"
    from specnorm_fastai.experiment import list_ways
    df = list_ways()
    return '\n'.join(['| way | what it does |', '|---|---|', *(f"| {w} | {t} |" for w,t in df['what it does'].items())])

def finished(d):
    "Are the tables of an experiment there? Beside packed runs they are of an earlier one, until these are done"
    return not (d/packed).exists() and any((d/n).exists() for n in (*_tables,'results.json'))

def done():
    "Folders of results, in the order of their experiments"
    return [here/r.stem for r in recipes() if finished(here/r.stem)]

def check():
    "Raise where tables are not of a recipe, or a text tells of runs that are not there"
    for d in sorted(here.iterdir()):
        if (finished(d) or (d/packed).exists()) and not (r:=here/f'{d.name}.toml').exists(): raise ValueError(f"{d}: holds runs, expected their recipe {r}, there is none")
    for r in recipes():
        d = here/r.stem
        if finished(d): whole(r, d)
        elif not (d/packed).exists() and (told:=[f for f in (here/f'{r.stem}.md',here/f'{r.stem}.verdict.md') if f.exists()]): raise ValueError(f"{told[0]}: tells of runs, expected these in {d}, there are none")

def overview():
    "What was run, what it cost, and what is still to be run"
    lines = ['| recipe | for | clips | folds held out | runs | training |', '|---|---|---|---|---|---|']
    total = 0
    for r in recipes():
        d,what = here/r.stem,first_words(r)[0].split('. ')[0].rstrip(':')
        if finished(d):
            rows,s = table(d/'results.csv'),json.loads((d/'results.json').read_text())['settings']
            clips,folds,runs,link = f"{s['clips']}{', '*bool(n:=tested(rows, s))}{n}",rows.fold.nunique(),len(rows),f'#{d.name}'
        elif (d/packed).exists():
            _,info,rows,want = archive(r)
            clips,folds,runs,link = info['settings']['clips'],rows.fold.nunique(),f'{so_many(len(rows), want)} so far',r.name
        else: lines.append(f'| [{r.stem}]({r.name}) | {what} | | | not run yet | |'); continue
        total += rows.seconds.sum()
        lines.append(f'| [{r.stem}]({link}) | {what} | {clips} | {folds} | {runs} | {rows.seconds.sum()/60:.0f} min |')
    return '\n'.join([*lines, '', f'Together {total/3600:.1f} hours: the wall times of all runs, each on one thread of a processor, added up.'])

def tried():
    "What the recipes of E3 were chosen from"
    df = read(here/'tried.csv', ['data','settings','seed','clips','accuracy']).groupby(['data','settings'], sort=False).agg(runs=('seed','size'), answers=('clips','sum'), accuracy=('accuracy','mean')).reset_index()
    lines = ['## What was tried for E3', '', (here/'tried.md').read_text().strip(), '', '| data | settings | runs | answers | accuracy % |', '|---|---|---|---|---|']
    return '\n'.join(lines+[f"| {r.data} | {r.settings} | {r.runs} | {r.answers} | {pct(r.accuracy)} |" for r in df.sort_values(['data','accuracy']).itertuples()])

def article():
    "What the runs of the article that started it came to, by its notebook, and what they say of the differences"
    from scipy.stats import ttest_ind
    from specnorm_fastai.analysis import holm
    df = read(here/'article.csv', ['way','accuracy'])
    runs = {w:d.accuracy.to_numpy() for w,d in df.groupby('way', sort=False)}
    if len(runs)<2 or min(map(len, runs.values()))<2: raise ValueError(f"{here/'article.csv'}: expected two or more runs of two or more ways, got {({w:len(x) for w,x in runs.items()})}")
    base = next(iter(runs))
    tests = {w:ttest_ind(x, runs[base], equal_var=False) for w,x in runs.items() if w!=base}
    p = dict(zip(tests, holm([t.pvalue for t in tests.values()])))
    lines = ['| published | runs | mean % | standard deviation | difference | 95 % interval over runs | p | p (Holm) |', '|---|---|---|---|---|---|---|---|']
    for w,x in runs.items():
        own = '| | | |' if w==base else f"{100*(x.mean()-runs[base].mean()):+.2f} | {span(*tests[w].confidence_interval(), '+')} | {tests[w].pvalue:.3f} | {p[w]:.3f} |"
        lines.append(f"| {w} | {', '.join(f'{100*v:.2f}' for v in x)} | {100*x.mean():.2f} | {100*x.std(ddof=1):.1f} | {own}")
    return '\n'.join(lines)

def part(name):
    "What the verdicts say of an experiment: `NAME.verdict.md` once it was run"
    file,d = here/f'{name}.verdict.md',here/own(here/f'{name}.toml').stem
    if not file.exists() and finished(d): raise ValueError(f"{file}: expected what the runs in {d} say, as verdicts.md asks for it, there is no such file")
    return file.read_text().strip() if file.exists() else f'`{name}.toml` has not been run to its end yet.'

def text():
    check()
    first,some = here/'verdicts.md',', or in `runs.tar.xz` where an experiment is not done' if any((here/r.stem/packed).exists() for r in recipes()) else ''
    return '\n\n'.join([head.strip().replace('{packed}', some), *([re.sub(r'\{([\w-]+)\}', lambda m: article() if m[1]=='article' else part(m[1]), first.read_text().strip())] if first.exists() else []),
        reading.strip().replace('{ways}', ways()), '## The experiments', overview(), *map(section, done()), data, tried()])+'\n'

def write():
    (here/'RESULTS.md').write_text(text())
    print(f"Written: {here/'RESULTS.md'}")

def main(args):
    if {'-h','--help'}&set(args): print(__doc__); return
    try:
        if args[:1]==['run']: run(args[1:])
        elif args[:1]==['pause'] and len(args) in (2,3): pause(*args[1:]); write()
        elif len(args)==2 and args[0]!='pause': keep(*args); write()
        elif not args: write()
        else: sys.exit(__doc__)
    except (ValueError,OSError) as e: sys.exit(str(e))

if __name__=='__main__': main(sys.argv[1:])
