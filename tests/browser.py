"A page in headless Chromium, driven over a pipe (Chrome DevTools Protocol): what it logs, what it asks for, what script says of it"
import base64,json,os,select,shutil,subprocess,sys,tempfile,time
from pathlib import Path

_names = ('chromium','chromium-browser','google-chrome','google-chrome-stable')
_flags = '''--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --no-default-browser-check --disable-background-networking --disable-component-update
    --disable-sync --disable-dev-shm-usage --disable-extensions --hide-scrollbars --mute-audio --remote-debugging-pipe'''.split()
# Chromium reads commands from descriptor 3 and answers on 4
_launch = '''import fcntl,os,sys
r,w = (fcntl.fcntl(int(a), fcntl.F_DUPFD, 10) for a in sys.argv[1:3])
os.dup2(r, 3); os.dup2(w, 4); os.execvp(sys.argv[3], sys.argv[3:])'''

def find_chromium():
    "The path of a Chromium, or None: `CHROMIUM` of the environment, else one on the PATH"
    return shutil.which(os.environ['CHROMIUM']) if os.environ.get('CHROMIUM') else next(filter(None, map(shutil.which, _names)), None)

def need_chromium():
    "Skip the test where there is no browser"
    import pytest
    if not find_chromium(): pytest.skip(f"no browser: none of {', '.join(_names)} is on the PATH, and CHROMIUM names none (Debian: apt-get install chromium)")

class Page:
    "An open page; `errors` are exceptions, errors of the console and severe log entries, `requests` all addresses that it asked for"
    def __init__(self, width=1200, height=900, scheme='light', timeout=60):
        self.timeout,self.errors,self.requests,self.failed = timeout,[],[],[]
        self._id,self._buf,self._loaded,self._session = 0,b'',0,None
        self._dir = tempfile.TemporaryDirectory(prefix='chromium-', ignore_cleanup_errors=True)
        in_r,self._w = os.pipe(); self._r,out_w = os.pipe()
        env = dict(os.environ, HOME=self._dir.name, XDG_CONFIG_HOME=self._dir.name, XDG_CACHE_HOME=self._dir.name)
        self._proc = subprocess.Popen([sys.executable,'-c',_launch,str(in_r),str(out_w),find_chromium(),*_flags,f'--user-data-dir={self._dir.name}/profile','about:blank'],
                                      pass_fds=(in_r,out_w), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(in_r); os.close(out_w)
        try:
            target = self.cdp('Target.createTarget', url='about:blank')['targetId']
            self._session = self.cdp('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
            for d in ('Page','Runtime','Log','Network'): self.cdp(f'{d}.enable')
            self.resize(width, height, scheme)
        except BaseException: self.close(); raise

    def _read(self, end):
        "The next message"
        while b'\0' not in self._buf:
            if not select.select([self._r], [], [], max(end-time.time(), 0))[0]: raise TimeoutError("Chromium did not answer")
            if not (more:=os.read(self._r, 1<<20)): raise RuntimeError(f"Chromium ended with status {self._proc.wait(10)}")
            self._buf += more
        one,self._buf = self._buf.split(b'\0', 1)
        return json.loads(one)

    def _event(self, m):
        k,p = m.get('method'),m.get('params',{})
        if k=='Page.loadEventFired': self._loaded += 1
        elif k=='Runtime.exceptionThrown': d = p['exceptionDetails']; self.errors.append((d.get('exception') or {}).get('description') or d['text'])
        elif k=='Runtime.consoleAPICalled' and p['type'] in ('error','assert'): self.errors.append(' '.join(str(a.get('value', a.get('description'))) for a in p['args']))
        elif k=='Log.entryAdded' and p['entry']['level']=='error': self.errors.append(p['entry']['text'])
        elif k=='Network.requestWillBeSent': self.requests.append(p['request']['url'])
        elif k=='Network.loadingFailed' and not p.get('canceled'): self.failed.append(p.get('errorText'))

    def cdp(self, method, /, **params):
        "Call a method of the protocol; its result"
        self._id += 1; end = time.time()+self.timeout
        msg = dict(id=self._id, method=method, params=params, **({'sessionId':self._session} if self._session else {}))
        data = json.dumps(msg).encode()+b'\0'
        while data: data = data[os.write(self._w, data):]
        while True:
            m = self._read(end)
            if m.get('id')!=self._id: self._event(m); continue
            if 'error' in m: raise RuntimeError(f"{method}: {m['error']}")
            return m['result']

    def resize(self, width, height=900, scheme='light'):
        "Size in CSS pixels, and the colour scheme that the reader prefers"
        self.cdp('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.cdp('Emulation.setEmulatedMedia', features=[dict(name='prefers-color-scheme', value=scheme)])

    def open(self, path):
        "Open a file, or an address, and wait until it is loaded"
        url,n,end = str(path) if '://' in str(path) else Path(path).resolve().as_uri(),self._loaded,time.time()+self.timeout
        res = self.cdp('Page.navigate', url=url)
        if res.get('errorText'): raise RuntimeError(f"{url}: {res['errorText']}")
        while self._loaded==n: self._event(self._read(end))
        return self

    def js(self, code):
        "The value of an expression, promises awaited"
        res = self.cdp('Runtime.evaluate', expression=code, returnByValue=True, awaitPromise=True, userGesture=True)
        if 'exceptionDetails' in res: raise RuntimeError(f"{code}: {res['exceptionDetails'].get('exception',{}).get('description') or res['exceptionDetails']['text']}")
        return res['result'].get('value')

    def wait(self, code, seconds=20):
        "Wait until an expression is true"
        end = time.time()+seconds
        while not self._true(code):
            if time.time()>end: raise TimeoutError(f"never true: {code}")
            time.sleep(.05)

    def _true(self, code):
        "Whether an expression is true; not where the page is being left, which answers no question"
        try: return self.js(code)
        except RuntimeError as e:
            if 'Inspected target navigated or closed' in str(e): return False
            raise

    def key(self, key, code=None, vk=0, text=None):
        "Press a key"
        for t in ('keyDown','keyUp'): self.cdp('Input.dispatchKeyEvent', type=t, key=key, code=code or key, windowsVirtualKeyCode=vk, **({'text':text} if text and t=='keyDown' else {}))

    def external(self):
        "What was asked for beyond the page's own file and what stands in it"
        return [u for u in self.requests if not u.startswith(('file:','data:','about:','blob:'))]

    def shot(self, path, full=True):
        "A picture of the page"
        size = self.cdp('Page.getLayoutMetrics')['cssContentSize']
        clip = dict(clip=dict(x=0, y=0, width=size['width'], height=min(size['height'],16000), scale=1)) if full else {}
        Path(path).write_bytes(base64.b64decode(self.cdp('Page.captureScreenshot', format='png', captureBeyondViewport=full, **clip)['data']))
        return path

    def pdf(self):
        "The page as printed"
        return base64.b64decode(self.cdp('Page.printToPDF', printBackground=True)['data'])

    def close(self):
        for f in (self._w,self._r):
            try: os.close(f)
            except OSError: pass
        try: self._proc.wait(5)  # it ends when its pipe does
        except subprocess.TimeoutExpired: self._proc.kill(); self._proc.wait()
        self._dir.cleanup()
    def __enter__(self): return self
    def __exit__(self, *_): self.close()
