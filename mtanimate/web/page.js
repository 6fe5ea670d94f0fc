() => {
  // A face that is clicked on the photo is chosen below it; the radio button stays the truth.
  const faces = () => document.querySelectorAll('#face input[type=radio]');
  const mark = () => {
    const chosen = [...faces()].find((input) => input.checked)?.value;
    document.querySelectorAll('.faces .face').forEach((button) => {
      button.classList.toggle('chosen', chosen === 'all' || button.dataset.face === chosen);
      button.setAttribute('aria-pressed', String(button.classList.contains('chosen')));
    });
  };
  document.addEventListener('click', (event) => {
    const face = event.target.closest?.('.faces .face');
    if (event.target.closest?.('#animate')) document.querySelector('#status')?.scrollIntoView({ block: 'nearest' });
    if (face) [...faces()].find((input) => input.value === face.dataset.face)?.click();
  });

  // What is cut off is darkened on the film strip.
  const cut = () => {
    const strip = document.querySelector('.strip > div');
    if (!strip) return;
    const value = (id) => Number(document.querySelector(`#${id} input[type=number]`)?.value ?? 0);
    const share = (seconds) => `${100 * Math.min(Math.max(seconds / strip.dataset.seconds, 0), 1)}%`;
    strip.querySelector('.start').style.width = share(value('start'));
    strip.querySelector('.end').style.width = share(strip.dataset.seconds - value('end'));
  };
  document.addEventListener('input', cut);
  document.addEventListener('change', () => { cut(); mark(); });

  // The driving video plays in step with the result.
  const keepStep = (result) => {
    const other = result.closest('.pair')?.querySelector('video.follows');
    if (!other) return;
    const at = () => result.currentTime + Number(other.dataset.start);
    const step = () => {
      if (Math.abs(other.currentTime - at()) > 0.08) other.currentTime = at();
      if (other.paused && !result.paused) other.play().catch(() => {}); // it ends before a result that starts again
    };
    result.addEventListener('play', () => { other.currentTime = at(); other.play().catch(() => {}); });
    result.addEventListener('pause', () => { other.pause(); step(); });
    result.addEventListener('seeking', () => { other.currentTime = at(); });
    result.addEventListener('timeupdate', step);
    result.addEventListener('ratechange', () => { other.playbackRate = result.playbackRate; });
    if (!result.paused) { other.currentTime = at(); other.play().catch(() => {}); }
  };
  // Places to drop a file are named by what is written on them, and by what they are for.
  const name = (place) => {
    const text = place.innerText.replace(/\s+/g, ' ').trim();
    const label = place.closest('.block')?.querySelector('[data-testid="block-label"]')?.innerText.trim() ?? '';
    const whole = `${label}: ${text}`;
    if (text && place.getAttribute('aria-label') !== whole) place.setAttribute('aria-label', whole);
  };

  const watched = new WeakSet();
  new MutationObserver(() => {
    document.querySelectorAll('button.upload-container').forEach(name);
    document.querySelectorAll('.pair video.result').forEach((video) => {
      if (!watched.has(video)) { watched.add(video); keepStep(video); }
    });
    cut();
    mark();
  }).observe(document.body, { childList: true, subtree: true });
}
