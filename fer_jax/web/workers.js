// Workers that keep the page's Content Security Policy: one that is loaded from an address has the policy of that
// response, which is none from most servers; one from a blob: inherits its maker's.

const Loaded = self.Worker;

export function startWorker(url, options) {
  const script = `import ${JSON.stringify(new URL(url, import.meta.url).href)};`;
  return new Loaded(URL.createObjectURL(new Blob([script], { type: "text/javascript" })), { ...options, type: "module" });
}
