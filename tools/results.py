"""Run experiments, keep their results and write experiments/RESULTS.md from them

    python tools/results.py run ESC10=DIR FSDD=DIR [NAME ...]  # what the recipes say, those of NAME or all, into results/NAME; then keep and write
    python tools/results.py pause NAME [OUT]                   # pack the finished runs of results/NAME, or OUT, into experiments/NAME/runs.tar.xz, then write
    python tools/results.py experiments/esc10-ways.toml OUT    # keep what the recipe gave in OUT, then write
    python tools/results.py                                    # write again

A run that was stopped goes on where it was, or from the packed runs where there is nothing in results/NAME. A recipe whose data are not given is left out, and told of.
tools/datasets.py makes the folders of data.
"""
import io,json,lzma,re,shlex,subprocess,sys,tarfile
from pathlib import Path
import pandas as pd

root = Path(__file__).resolve().parent.parent
here = root/'experiments'
packed = 'runs.tar.xz'
_key = ['way','fold','seed']
_kept = [*_key,'accuracy','balanced_accuracy','loss','n_train','n_valid','seconds','started']

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
    failed = []
    for r in (r for r in recipes() if not names or r.stem in names):
        out = root/'results'/r.stem
        if (words:=command(r, data, out.parent)) is None: print(f"{r.stem}: left out, its data are not given"); continue
        print(f"{r.stem}: {first_words(r)[0]}", flush=True)
        try:
            unpack(r, out)
            if (code:=status(words))==130: print(f"Stopped. The same command goes on; python tools/results.py pause {r.stem} packs the finished runs"); sys.exit(130)
            if code: raise ValueError(f"{r.stem}: specnorm-compare ended with status {code}")
            keep(r, out)
        except ValueError as e: print(e, file=sys.stderr, flush=True); failed.append(r.stem); continue
        write()
    if failed: raise ValueError(f"Failed: {', '.join(failed)}")

def plan(recipe):
    "The arguments that a recipe and its command give, and all settings of its runs"
    from specnorm_fastai.cli import _parser
    from specnorm_fastai.compare import _arguments
    args = vars(_parser().parse_args(shlex.split(first_words(recipe)[1])[1:]))
    if args['fold'] is not None and len(args['fold'])==1: args['fold'] = args['fold'][0]
    call,s = _arguments({**{k:v for k,v in args.items() if k not in ('data','test_data','out','cache')}, 'recipe':recipe}, False)
    return json.loads(json.dumps(call)),json.loads(json.dumps(s))

def runs_of(recipe, info, where, part=False):
    "The runs that a recipe consists of, as (way, fold, seed); raises where the settings that are noted in a results.json are not its own. Of a part the folds may be others: then None stands for each"
    from specnorm_fastai.compare import _setting_defaults
    call,want = plan(recipe)
    try: was,got = dict(info['call']),{**_setting_defaults, 'arms':{}, **info['settings']}; folds,names = [str(f) for f in was['folds']],set(was['ways'])
    except (KeyError,TypeError,ValueError): raise ValueError(f"{where}: expected the results.json of an experiment") from None
    def fill(s, of):  # the duration of the longest clip, where the recipe has none
        if s.get('duration', 0) is None: s['duration'] = of.get('duration')
    fill(want, got)
    for n,a in want['arms'].items(): fill(a, got['arms'].get(n, {}))
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

def read_info(out):
    "What a folder of `specnorm-compare` was made with"
    if not out.is_dir(): raise ValueError(f"{out}: expected a folder that specnorm-compare wrote, there is none")
    if not (file:=out/'results.json').is_file(): raise ValueError(f"{out}: expected a folder that specnorm-compare wrote, there is no results.json")
    try:
        info = json.loads(file.read_text(encoding='utf8'))
        return {**info, 'call':{**info['call'], **{k:Path(v).name if (v:=info['call'].get(k)) else None for k in ('data','test_data')}}, **{k:info[k] for k in ('settings','versions','labels')}}
    except (ValueError,KeyError,TypeError,OSError): raise ValueError(f"{file}: expected the results.json of an experiment") from None

def noted(info):
    "What is kept of a results.json: nothing in it names a folder of this machine"
    return json.dumps({k:info[k] for k in ('settings','call','versions','labels')}, indent=1)+'\n'

def compared(there, want, recipe, out):
    "Raise where there are runs that a recipe does not have"
    if more:=[k for k in there if k not in want and (k[0],None,k[2]) not in want]: raise ValueError(f"{out}: holds {many(len(more), 'run')} that {recipe.name} does not have, such as {', '.join(map(str, more[0]))}")

def keep(recipe, out):
    "Copy the tables of an experiment beside its recipe, if all of its runs are done; what names a folder of this machine stays behind"
    recipe,out = own(recipe),Path(out).expanduser()
    info = read_info(out)
    want = runs_of(recipe, info, out)
    files = {'results.csv':_kept, 'analysis.csv':['way','runs','accuracy','verdict'], **({'conditions-analysis.csv':['condition','way','accuracy','verdict']} if info['settings'].get('conditions') else {})}
    tables = {}
    for n,cols in files.items():
        if not (out/n).is_file(): raise ValueError(f"{out}: there is no {n}, so the experiment is not done. The recipe's command goes on with it")
        try: tables[n] = table(out/n)
        except (ValueError,OSError) as e: raise ValueError(f"{out/n}: expected a table of specnorm-compare ({e})") from None
        if gone:=[c for c in cols if c not in tables[n]]: raise ValueError(f"{out/n}: expected the columns {cols}, there is no {gone[0]!r}")
    rows = tables['results.csv']
    done = [(r.way,r.fold,int(r.seed)) for r in rows.itertuples()]
    compared(done, want, recipe, out)
    if len(done)!=len(want) or set(done)!=set(want): raise ValueError(f"{out}: {len(set(done))} of {len(want)} runs are done. The recipe's command goes on with them")
    counts = rows.groupby('way').size()
    if (at:=dict(zip(tables['analysis.csv'].way, tables['analysis.csv'].runs)))!=counts.to_dict(): raise ValueError(f"{out/'analysis.csv'}: expected {counts.to_dict()} runs, got {at}. The recipe's command writes it again")
    to = here/recipe.stem
    to.mkdir(exist_ok=True)
    (to/'results.json').write_text(noted(info))
    for n,t in {**tables, 'results.csv':rows[_kept]}.items(): t.round(6).to_csv(to/n, index=False)
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

def pause(recipe, out=None):
    "Pack the finished runs of a recipe, so that another machine or another day goes on from them"
    from specnorm_fastai.compare import _load_runs
    recipe = own(recipe)
    out = root/'results'/recipe.stem if out is None else Path(out).expanduser()
    info = read_info(out)
    want = runs_of(recipe, info, out, part=True)
    done = _load_runs(out, info['settings'])
    if not done: raise ValueError(f"{out}: no run is finished yet, so there is nothing to pack")
    compared(done, want, recipe, out)
    files = {'results.json':noted(info).encode(), **{f'runs/{f.name}':f.read_bytes() for f in (out/'runs').glob('*.json') if not f.name.startswith('.')}}
    file = here/recipe.stem/packed
    if file.exists() and (lost:=sorted(set(contents(file))-set(files))):
        raise ValueError(f"{file}: holds {many(len(lost), 'run')} that {out} has not, such as {lost[0]}. Delete it if they are not wanted; to go on from them, begin without {root/'results'/recipe.stem}")
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(pack(files))
    print(f"{file}: {so_many(len(done), want)}")

def so_many(n, want): return many(n, 'run') if want[0][1] is None else f"{n} of {many(len(want), 'run')}"

def unpack(recipe, out):
    "The packed runs of a recipe, where nothing of it is in a folder"
    if not (file:=here/recipe.stem/packed).exists() or (out/'results.json').exists() or any((out/'runs').glob('*.json')): return
    res = contents(file)
    (out/'runs').mkdir(parents=True, exist_ok=True)
    for n in sorted(res, reverse=True): (out/n).write_bytes(res[n])  # results.json last
    print(f"{recipe.stem}: goes on from {many(len(res)-1, 'run')} of {file}", flush=True)

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

On one machine, with the same versions and number of threads, a seed gives the same run to the bit. Another processor or version rounds sums differently, and single runs, of some 80 clips, then differ by a few points; that is why means are published, with their intervals. esc10-ways, esc10-mask and fsdd-ways were run when validating still drew random numbers, so that the same ways of the first two, which validated every 5 and every 4 epochs, differ by up to 5 points in a run, and by 0.4 in the mean.

The ways ([45_ways_tfms](../nbs/45_ways_tfms.ipynb) has more on each):

{ways}

item, item_frequency, item_mean, bands, minmax and sliding also fill silence and padding (`FillFrames`), as `mask` says. The others, PCEN among them, do not, unless `fill` follows.

A recipe can set options of a way: `db_max` goes down to 50 dB in best, and `floor80` to `floor30` of esc10-floor are `db_max` down to so many.
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

def done():
    "Folders of results, in the order of their experiments"
    return [here/r.stem for r in recipes() if (here/r.stem/'analysis.csv').exists()]

def so_far(recipe):
    "What a paused experiment holds: settings, rows of its runs, and how many of all these are"
    files = contents(file:=here/recipe.stem/packed)
    info = json.loads(files['results.json'])
    want = runs_of(recipe, info, file, part=True)
    try: rows = pd.DataFrame([json.loads(v)['row'] for n,v in files.items() if n!='results.json'])
    except (ValueError,KeyError,TypeError): raise ValueError(f"{file}: expected runs of an experiment") from None
    return info['settings'],rows,so_many(len(rows), want)

def overview():
    "What was run, what it cost, and what is still to be run"
    lines = ['| recipe | for | clips | folds held out | runs | training |', '|---|---|---|---|---|---|']
    total = 0
    for r in recipes():
        d,what = here/r.stem,first_words(r)[0].split('. ')[0].rstrip(':')
        if (d/'analysis.csv').exists():
            rows,s = table(d/'results.csv'),json.loads((d/'results.json').read_text())['settings']
            clips,folds,runs,link = f"{s['clips']}{', '*bool(n:=tested(rows, s))}{n}",rows.fold.nunique(),len(rows),f'#{d.name}'
        elif (d/packed).exists():
            s,rows,n = so_far(r)
            clips,folds,runs,link = s['clips'],rows.fold.nunique(),f'{n} so far',r.name
        else: lines.append(f'| [{r.stem}]({r.name}) | {what} | | | not run yet | |'); continue
        total += rows.seconds.sum()
        lines.append(f'| [{r.stem}]({link}) | {what} | {clips} | {folds} | {runs} | {rows.seconds.sum()/60:.0f} min |')
    return '\n'.join([*lines, '', f'Together {total/3600:.1f} hours: the wall times of all runs, each on one thread of a processor, added up.'])

def tried():
    "What the recipes of E3 were chosen from"
    df = pd.read_csv(here/'tried.csv').groupby(['data','settings'], sort=False).agg(runs=('seed','size'), answers=('clips','sum'), accuracy=('accuracy','mean')).reset_index()
    lines = ['## What was tried for E3', '', (here/'tried.md').read_text().strip(), '', '| data | settings | runs | answers | accuracy % |', '|---|---|---|---|---|']
    return '\n'.join(lines+[f"| {r.data} | {r.settings} | {r.runs} | {r.answers} | {pct(r.accuracy)} |" for r in df.sort_values(['data','accuracy']).itertuples()])

def article():
    "What the runs of the article that started it came to, by its notebook, and what they say of the differences"
    from scipy.stats import ttest_ind
    from specnorm_fastai.analysis import holm
    df = pd.read_csv(here/'article.csv')
    runs = {w:d.accuracy.to_numpy() for w,d in df.groupby('way', sort=False)}
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
    file = here/f'{name}.verdict.md'
    return file.read_text().strip() if file.exists() else f'`{name}.toml` has not been run to its end yet.'

def text():
    first,some = here/'verdicts.md',', or in `runs.tar.xz` where an experiment is not done' if any((here/r.stem/packed).exists() for r in recipes()) else ''
    return '\n\n'.join([head.strip().replace('{packed}', some), *([first.read_text().strip().format(article=article(), **{k:part(k) for k in ('blog','best')})] if first.exists() else []),
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
