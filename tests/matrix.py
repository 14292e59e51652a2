"The package with other versions of what it stands on: one environment after the other is made, a fixed part of the tests runs in it, and it is removed"
import json,os,re,shutil,subprocess,sys,tempfile,time
import xml.etree.ElementTree as ET
from configparser import ConfigParser
from pathlib import Path

root = Path(__file__).resolve().parents[1]
PART = ['tests/test_core.py','tests/test_specstats.py','tests/test_data.py','tests/test_collect.py']
SHORT = ['tests/test_core.py','tests/test_collect.py']

# name: (Python, versions, modules that are hidden, start of processes, tests). Python None: the one that runs this, with its packages, and `versions` above them
STACKS = {
    'as it is': (None, [], [], None, SHORT),
    'fastai 2.8.9': (None, ['fastai==2.8.9'], [], None, PART),
    'pandas 2.3': (None, ['pandas==2.3.3','pytz'], [], None, ['tests/test_data.py']),
    'numba that compiles nothing': (None, [], ['numba'], None, ['tests/test_collect.py']),
    'no torchaudio': (None, [], ['torchaudio'], None, ['tests/test_collect.py']),
    'spawn': (None, [], [], 'spawn', []),
    'Python 3.10, torch 2.6, fastai 2.8.9': ('3.10', ['fastai==2.8.9','torch==2.6.0','torchaudio==2.6.0','pandas<3','librosa<1'], [], None, SHORT),
    'Python 3.10, torch 2.9, fastai 2.8.12': ('3.10', ['fastai==2.8.12','torch==2.9.1','torchaudio==2.9.1','pandas<3','librosa<1'], [], None, ['tests/test_collect.py']),
    'Python 3.12, newest': ('3.12', ['fastai','torch','torchaudio','librosa'], [], None, ['tests/test_collect.py']),
    'Python 3.13, newest': ('3.13', ['fastai','torch','torchaudio','librosa'], [], None, ['tests/test_collect.py'])}

def _requirements():
    cfg = ConfigParser(delimiters=['='], interpolation=None); cfg.read(root/'settings.ini')
    return [l.strip() for l in cfg['DEFAULT']['requirements'].splitlines() if l.strip()]+['pytest','hypothesis','ipython','onnx','onnxscript','onnxruntime']

def interpreter(version):
    "The newest Python of a version that is here, or None"
    found = [p for p in sorted(Path.home().glob(f'.pyenv/versions/{version}.*/bin/python'))] + [Path(p) for p in (shutil.which(f'python{version}'),) if p and 'shims' not in p]
    return next((str(p) for p in found), None)

def _versions(py, env):
    code = "import json,platform\nfrom importlib.metadata import version\nr={'python':platform.python_version()}\nfor n in ('fastai','torch','librosa','pandas','numpy','numba','torchaudio','lmdb'):\n try: r[n]=version(n)\n except Exception: pass\nprint(json.dumps(r))"
    return json.loads(subprocess.run([py,'-c',code], env=env, capture_output=True, text=True, check=True).stdout)

def run(name, envs, log=print):
    "Make the environment, run the tests; what came of it"
    version,versions,hidden,start,tests = STACKS[name]
    t,at = time.time(),Path(tempfile.mkdtemp(dir=envs, prefix='stack-'))
    env = {**os.environ, 'OMP_NUM_THREADS':'1', 'MPLBACKEND':'Agg', 'CI':'true', 'PYTHONPATH':str(root), 'PYTHONDONTWRITEBYTECODE':'1'}
    uv = shutil.which('uv') or str(Path(sys.executable).parent/'uv')
    try:
        if version is None:
            py,above = sys.executable,at/'above'
            above.mkdir()
            if versions: subprocess.run([uv,'pip','install','-q','--no-deps','--python',py,'--target',above,*versions], check=True, capture_output=True, text=True)
            if 'numba' in hidden: env['NUMBA_DISABLE_JIT'] = '1'  # librosa itself cannot do without the module
            for h in hidden:
                if h!='numba': (above/f'{h}.py').write_text(f"raise ModuleNotFoundError(\"No module named '{h}'\", name='{h}')\n")
            env['PYTHONPATH'] = f'{above}{os.pathsep}{root}'
        else:
            if (own:=interpreter(version)) is None: return dict(stack=name, state='not run: no such Python here')
            subprocess.run([uv,'venv','-q','--python',own,at/'env'], check=True, capture_output=True, text=True)
            py = str(at/'env'/'bin'/'python')
            subprocess.run([uv,'pip','install','-q','--python',py,*versions,*_requirements()], check=True, capture_output=True, text=True)
        res = dict(stack=name, versions=_versions(py, env), hidden=hidden)
        program = [py,'-c',f"import multiprocessing,sys\nif {start!r}: multiprocessing.set_start_method({start!r})\nsys.path.insert(0,'tests')\nimport newest_stack\nif __name__=='__main__': newest_stack.main()"]
        r = subprocess.run(program, cwd=root, env=env, capture_output=True, text=True, timeout=900)
        res['program'] = 'passed' if r.returncode==0 else 'failed'
        if r.returncode: res['error'] = r.stderr.strip()[-1500:]
        if tests:
            r = subprocess.run([py,'-m','pytest','-q','-W','ignore','-p','no:cacheprovider',f'--junitxml={at}/out.xml',*tests], cwd=root, env=env, capture_output=True, text=True, timeout=1800)
            s = [(int(s.get('tests')),int(s.get('failures'))+int(s.get('errors')),int(s.get('skipped'))) for s in ET.parse(at/'out.xml').iter('testsuite')]
            n,bad,skipped = map(sum, zip(*s))
            res.update(passed=n-bad-skipped, failed=bad, skipped=skipped, files=[Path(f).name for f in tests])
            if bad: res['failures'] = re.findall(r'^(?:FAILED|ERROR) (.*)', r.stdout, re.M)[:20]
        res['state'] = 'passed' if res['program']=='passed' and not res.get('failed') else 'failed'
    except subprocess.CalledProcessError as e: res = dict(stack=name, state='not made', error=(e.stderr or str(e)).strip()[-800:])
    except subprocess.TimeoutExpired as e: res = dict(stack=name, state='failed', error=f'no end in {e.timeout:.0f} s')
    finally: shutil.rmtree(at, ignore_errors=True)
    res['seconds'] = round(time.time()-t)
    log(f"{name}: {res['state']}, {res.get('passed','-')} tests passed, {res['seconds']} s")
    return res

if __name__=='__main__':
    for n in sys.argv[2:] or STACKS: print(json.dumps(run(n, sys.argv[1])), flush=True)
