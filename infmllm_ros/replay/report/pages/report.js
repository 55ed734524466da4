'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const make = (name, fields) => {
    const made = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const [key, value] of Object.entries(fields)) made.setAttribute(key, value);
    return made;
  };

  const marked = (hash) => {
    try {
      return document.getElementById(decodeURIComponent(hash));
    } catch {  // not an address that was written here
      return null;
    }
  };

  // The time line: a mark shows what it stands for, and lines to the frames it rests on.
  const line = document.querySelector('.line-of-time');
  const links = document.getElementById('links');
  const panel = document.getElementById('panel');
  const marks = [...document.querySelectorAll('.mark')].sort(
    (a, b) => a.dataset.x - b.dataset.x);
  let chosen = null;

  const connect = () => {
    links.replaceChildren();
    const answer = chosen && data.answers[chosen.dataset.to.replace(/^answer-/, '')];
    if (!answer) return;
    const wide = line.clientWidth / 100;
    const [film, step] = [+line.dataset.film, +line.dataset.step];
    const x0 = chosen.dataset.x * wide, y0 = +chosen.dataset.y;
    const most = Math.max(...answer.evidence.map((one) => one[2]));
    for (const [across, camera, weight, picture] of [...answer.evidence].reverse()) {
      const x = across * wide, y = film + step * camera + step - 66;
      const bold = 1 + 2 * weight / most;
      links.append(make('path', {class: 'link', 'stroke-width': bold,
        d: `M${x0} ${y0}C${x0} ${(y0 + y) / 2} ${x} ${(y0 + y) / 2} ${x} ${y}`}));
      const left = Math.min(Math.max(x - 31, 0), line.clientWidth - 62);
      links.append(make('rect', {class: 'lens', x: left - 3, y: y - 3, width: 68, height: 68,
        rx: 5}));
      if (picture) {
        links.append(make('use', {href: `#${picture}`, x: left, y, width: 62, height: 62}));
      }
    }
  };

  const choose = (mark) => {
    if (chosen) chosen.classList.remove('on');
    chosen = mark;
    panel.hidden = !mark;
    panel.replaceChildren();
    if (mark) {
      mark.classList.add('on');
      const shown = document.getElementById(mark.dataset.to);
      if (shown) {
        const copy = document.createElement('div');
        copy.className = shown.className;
        copy.append(...[...shown.children].map((child) => child.cloneNode(true)));
        panel.append(copy);
      }
    }
    connect();
  };

  if (line) {
    marks.forEach((mark, place) => {
      mark.addEventListener('pointerenter', () => choose(mark));
      mark.addEventListener('focus', () => choose(mark));
      mark.addEventListener('click', (event) => {
        if (event.pointerType === 'touch') event.preventDefault();  // the panel has the link
      });
      mark.addEventListener('keydown', (event) => {
        const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
        if (step) {
          event.preventDefault();
          marks[Math.min(marks.length - 1, Math.max(0, place + step))].focus();
        } else if (event.key === 'Escape') {
          choose(null);
        }
      });
    });
    const asked = marks.filter((mark) => mark.dataset.to.startsWith('answer-')
      && mark.getAttribute('aria-label').startsWith('Question'));
    choose(asked.at(-1) || marks[0] || null);
    addEventListener('resize', connect);
  }

  // Figures: one moment, pointed at in any of them, is shown in all.
  const plots = [...document.querySelectorAll('svg[data-plot]')].map((svg) => {
    const cursor = make('line', {class: 'cursor cursor-off', y1: 8, y2: svg.getAttribute('height') - 22});
    svg.append(cursor);
    svg.setAttribute('tabindex', '0');
    return {svg, cursor, readout: svg.parentNode.querySelector('.readout'),
      ...data.plots[svg.dataset.plot]};
  });
  const clock = (s) => s < 60 ? `${s.toFixed(1)} s`
    : `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, '0')}`;
  let moment = null;
  const point = (seconds) => {
    moment = seconds;
    for (const {cursor, readout, x, rows} of plots) {
      cursor.classList.toggle('cursor-off', seconds === null);
      readout.textContent = '';
      if (seconds === null) continue;
      let near = 0;
      x.forEach((at, place) => {
        if (Math.abs(at - seconds) < Math.abs(x[near] - seconds)) near = place;
      });
      for (const end of ['x1', 'x2']) {
        cursor.setAttribute(end, `${100 * seconds / (data.seconds || 1)}%`);
      }
      readout.textContent = `${clock(x[near])}: ` + rows.map(
        ([name, unit, values]) => `${name} ${values[near]}${unit && ' ' + unit}`).join(', ');
    }
  };
  for (const {svg} of plots) {
    svg.addEventListener('pointermove', (event) => {
      const box = svg.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      point(Math.min(1, Math.max(0, share)) * data.seconds);
    });
    svg.addEventListener('pointerleave', () => point(null));
    svg.addEventListener('blur', () => point(null));
    svg.addEventListener('keydown', (event) => {
      const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
      if (!step) return;
      event.preventDefault();
      point(Math.min(data.seconds, Math.max(0, (moment ?? 0) + step * data.seconds / 100)));
    });
  }

  // Answers: which are shown, and links to one.
  const list = [...document.querySelectorAll('.answers > .answer')];
  const filters = document.querySelector('.filters');
  if (!filters) return;
  filters.hidden = false;
  const find = document.getElementById('find');
  const buttons = [...filters.querySelectorAll('button')];
  const fits = {
    all: () => true,
    wrong: (row) => ['wrong', 'failed'].includes(row.dataset.verdict),
    question: (row) => row.dataset.kind === 'question',
    watch: (row) => row.dataset.kind === 'watch',
  };
  const filter = (show) => {
    buttons.forEach((one) => one.setAttribute('aria-pressed', String(one.dataset.show === show)));
    const words = find.value.toLowerCase();
    let count = 0;
    for (const row of list) {
      row.hidden = !(fits[show](row) && row.textContent.toLowerCase().includes(words));
      count += !row.hidden;
    }
    document.getElementById('count').textContent = `${count} of ${list.length}`;
  };
  const pressed = () => buttons.find((one) => one.getAttribute('aria-pressed') === 'true');
  buttons.forEach((one) => one.addEventListener('click', () => filter(one.dataset.show)));
  find.addEventListener('input', () => filter(pressed().dataset.show));
  const follow = () => {
    const row = marked(location.hash.slice(1));
    if (!row) return;
    if (row.hidden) {
      find.value = '';
      filter('all');
    }
    const said = row.closest('details');
    if (said) said.open = true;
    row.scrollIntoView({block: 'center'});
    const mark = marks.find((one) => one.dataset.to === row.id);
    if (mark) choose(mark);
  };
  addEventListener('hashchange', follow);
  filter(list.some(fits.question) ? 'question' : 'all');
  if (location.hash) follow();
})();
