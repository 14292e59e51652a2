"The package as a whole"
import re,subprocess,sys
from pathlib import Path
import numpy as np, pandas as pd, pytest
root = Path(__file__).parents[1]

def test_importing_everything_leaves_torchaudio_alone():
    r = subprocess.run([sys.executable,'-c',"import sys; from specnorm_fastai.all import *; print('torchaudio' in sys.modules, 'numba' in sys.modules)"], capture_output=True, text=True, check=True)
    assert r.stdout.split()==['False','False']

def test_all_gives_every_exported_name():
    import specnorm_fastai.all as a
    from importlib import import_module
    for m in (root/'specnorm_fastai').glob('[a-z]*.py'):
        if m.stem in ('all','cli','kernels'): continue  # kernels are for the other modules, and imported when they are used
        for n in import_module(f'specnorm_fastai.{m.stem}').__all__: assert hasattr(a, n), (m.stem, n)

def test_fastai_first_then_ours_keeps_both_working():
    code = "from fastai.vision.all import *\nfrom specnorm_fastai.all import *\nassert Normalize and AudioBlock and accuracy and show_batch\nimport fastai.data.core as c\nassert show_batch is c.show_batch"
    subprocess.run([sys.executable,'-c',code], check=True)

def test_a_version_stands_once():
    import specnorm_fastai
    from importlib.metadata import version
    try: v = version('specnorm_fastai')
    except Exception: pytest.skip('the package is not installed here')
    assert v==specnorm_fastai.__version__ and re.fullmatch(r'\d+\.\d+\.\d+', v)

def test_constraints_pin_every_requirement():
    from configparser import ConfigParser
    cfg = ConfigParser(delimiters=['='], interpolation=None); cfg.read(root/'settings.ini')
    reqs = [r for k,v in cfg['DEFAULT'].items() if k.endswith('requirements') for r in v.split()]
    pinned = {l.split('==')[0].strip().lower() for l in (root/'constraints.txt').read_text().splitlines() if '==' in l}
    assert {re.split('[<>=!;]', r)[0].lower() for r in reqs}<=pinned and not any('torch<' in r for r in reqs)

def test_nothing_imports_torchaudio():
    for f in (root/'specnorm_fastai').glob('*.py'): assert 'import torchaudio' not in f.read_text(), f

def test_the_readmes_python_runs_as_printed(tmp_path):
    "Each python block of README.md in one process, in an empty folder"
    blocks = re.findall(r'```python\n(.*?)```', (root/'README.md').read_text(), re.S)
    assert len(blocks)>=3
    code = 'import matplotlib; matplotlib.use("Agg")\n' + '\n'.join(blocks)
    r = subprocess.run([sys.executable,'-c',code], cwd=tmp_path, capture_output=True, text=True)
    assert r.returncode==0, r.stderr[-2000:]

# what tells the shape or the unit of a tensor: dims in brackets, a unit, or another name that has it
_shaped = re.compile(r"\([^()]*(,|\.\.\.)[^()]*\)|[Aa]ny shape|[Ll]ike `|[Aa]s large as|[Aa]s of `|[Ss]ee `|\bdims\b|\bdB\b|\bHz\b|\bseconds\b|\b([Aa]|[Oo]ne) number|broadcasts")

def _gaps(syms):
    "What public functions, classes, methods and properties do not say"
    for mod,here in syms.items():
        for s in here.values():
            if s.kind!='value' and not s.doc: yield f'{mod}.{s.name}: no docstring'
            for k,v in s.params().items():
                if k=='return' or getattr(v['kind'], 'name', '') in ('VAR_POSITIONAL','VAR_KEYWORD') and not v['docment']: continue
                if not v['docment']: yield f'{mod}.{s.name}({k}): no docment'
                elif re.search(r'Tensor|ndarray|AudioSpectrogram', str(v['anno'])) and not _shaped.search(v['docment']): yield f"{mod}.{s.name}({k}): neither shape nor unit: {v['docment']}"

def _tool(name):
    import importlib.util
    spec = importlib.util.spec_from_file_location(name, root/'tools'/f'{name}.py')
    m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)
    return m

def test_every_public_name_method_and_parameter_is_documented_tensors_with_shape_or_unit():
    syms = _tool('docs').symbols()
    assert sum(len(v) for v in syms.values())>=300 and not (bad:=list(_gaps(syms))), bad

def test_a_gap_in_the_docments_is_found():
    import ast
    from torch import Tensor
    m = _tool('docs')
    def bad(x:Tensor, # The values
            y=1): return x
    def good(x:Tensor, # The values, (..., time)
             y=1 # A factor
    ):
        "What it does"
        return x
    node = lambda n: ast.parse(f'def {n}(x, y=1): {chr(34)}{"What" if n=="good" else ""}{chr(34)}').body[0]
    gaps = lambda f: list(_gaps(dict(m={f.__name__:m.Symbol('m', f.__name__, f, node(f.__name__), 1)})))
    assert [g.partition(': ')[2][:12] for g in gaps(bad)]==['no docstring','neither shap','no docment'] and gaps(good)==[]

def _results():
    import importlib.util
    spec = importlib.util.spec_from_file_location('results', root/'tools'/'results.py')
    m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)
    return m

def test_make_results_runs_each_recipe_once_and_keeps_it(tmp_path, monkeypatch, capsys):
    from specnorm_fastai.cli import _parser
    m,ran = _results(),[]
    for r in m.recipes():
        a = _parser().parse_args(m.command(r, dict(ESC10='e', FSDD='f'), tmp_path)[3:])
        assert a.data==('f' if r.stem.startswith('fsdd') else 'e') and Path(a.recipe)==r and Path(a.out)==tmp_path/r.stem
    for k,v in dict(here=tmp_path/'experiments', root=tmp_path).items(): monkeypatch.setattr(m, k, v)
    m.here.mkdir()
    for n,words in (('b','ESC10 --recipe experiments/b.toml --fold 1 --out results-b'),('a','FSDD --recipe experiments/a.toml --out results-a'),('c','ESC10 --recipe experiments/c.toml --out results-c')):
        (m.here/f'{n}.toml').write_text(f"# E{dict(a=2, b=1, c=3)[n]}. What {n} is for:\n#   specnorm-compare --data {words}\nruns = 1\n")
    monkeypatch.setattr(m, 'status', lambda words: ran.append(words[3:]) or int('c.toml' in str(words)))
    monkeypatch.setattr(m, 'keep', lambda r, out: ran.append((r.stem,out))); monkeypatch.setattr(m, 'write', lambda: None)
    with pytest.raises(SystemExit, match='Failed: c'): m.main(['run', f'ESC10={tmp_path}'])
    assert [x if isinstance(x, tuple) else x[3] for x in ran]==[str(m.here/'b.toml'),('b',tmp_path/'results-recipes'/'b'),str(m.here/'c.toml')] and ran[0][4:6]==['--fold','1']
    out = capsys.readouterr()
    assert 'a: left out, its data are not given' in out.out and 'c: specnorm-compare ended with status 1' in out.err
    for args,says in (([],'Expected the folder'),(['ESC5=x'],'expected ESC10=DIR'),([f'FSDD={tmp_path}/no'],'expected a folder'),([f'FSDD={tmp_path}','z'],'expected a recipe among')):
        with pytest.raises(SystemExit, match=says): m.main(['run', *args])

def test_the_results_are_those_of_the_tables_beside_them():
    m = _results()
    assert (root/'experiments'/'RESULTS.md').read_text()==m.text(), 'run python tools/results.py'
    for d in m.done():  # the verdicts stand on the runs beside them
        rows,a = pd.read_csv(d/'results.csv'),pd.read_csv(d/'analysis.csv')
        assert np.allclose(a.accuracy, rows.groupby('way', sort=False).accuracy.mean()[a.way], atol=1e-4)
        base = rows[rows.way==a.way[0]].set_index(['fold','seed']).accuracy
        for w,v in zip(a.way[1:], a['diff'][1:]): assert np.isclose((rows[rows.way==w].set_index(['fold','seed']).accuracy-base).mean(), v, atol=1e-4), w
