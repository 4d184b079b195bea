// COCO's run-length code: column by column, runs of 0 and 1 in turn, as text with six bits a letter.

export function decompressCounts(text) {
  const runs = [];
  let number = 0;
  let shift = 0;
  for (let i = 0; i < text.length; i += 1) {
    const group = text.charCodeAt(i) - 48;
    number |= (group & 0x1f) << shift;
    shift += 5;
    if (group & 0x20) continue;
    if (group & 0x10) number |= -1 << shift;
    runs.push(runs.length > 2 ? number + runs[runs.length - 2] : number);
    number = 0;
    shift = 0;
  }
  return runs;
}

// A mask as rows of 0 and 1, with the box around it: {width, height, pixels, box: [x0, y0, x1, y1] or null}.
export function decodeMask(rle) {
  const [height, width] = rle.size;
  const pixels = new Uint8Array(width * height);
  const runs = typeof rle.counts === "string" ? decompressCounts(rle.counts) : rle.counts;
  let [x0, y0, x1, y1] = [width, height, 0, 0];
  let place = 0;
  runs.forEach((run, number) => {
    if (number % 2 && run) {
      for (let at = place; at < place + run; at += 1) {
        const x = Math.floor(at / height);
        const y = at - x * height;
        pixels[y * width + x] = 1;
        if (y < y0) y0 = y;
        if (y >= y1) y1 = y + 1;
      }
      x0 = Math.min(x0, Math.floor(place / height));
      x1 = Math.max(x1, Math.floor((place + run - 1) / height) + 1);
    }
    place += run;
  });
  return { width, height, pixels, box: x1 > x0 ? [x0, y0, x1, y1] : null };
}

export function encodeMask({ width, height, pixels }) {
  const counts = [];
  let value = 0;
  let run = 0;
  for (let x = 0; x < width; x += 1) {
    for (let at = x; at < pixels.length; at += width) {
      if (pixels[at] !== value) {
        counts.push(run);
        run = 0;
        value = pixels[at];
      }
      run += 1;
    }
  }
  counts.push(run);
  return { size: [height, width], counts };
}

export function emptyMask(width, height) {
  return { width, height, pixels: new Uint8Array(width * height), box: null };
}

// Set or clear all pixels within `radius` of the line from one point to another; their centres count.
export function paintLine(mask, from, to, radius, value) {
  const { width, height, pixels } = mask;
  const x0 = Math.max(0, Math.floor(Math.min(from[0], to[0]) - radius));
  const x1 = Math.min(width, Math.ceil(Math.max(from[0], to[0]) + radius) + 1);
  const y0 = Math.max(0, Math.floor(Math.min(from[1], to[1]) - radius));
  const y1 = Math.min(height, Math.ceil(Math.max(from[1], to[1]) + radius) + 1);
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
  const length = dx * dx + dy * dy;
  for (let y = y0; y < y1; y += 1) {
    for (let x = x0; x < x1; x += 1) {
      const [px, py] = [x + 0.5 - from[0], y + 0.5 - from[1]];
      const along = length ? Math.max(0, Math.min(1, (px * dx + py * dy) / length)) : 0;
      const [ex, ey] = [px - along * dx, py - along * dy];
      if (ex * ex + ey * ey <= radius * radius) pixels[y * width + x] = value;
    }
  }
  if (value) growBox(mask, [x0, y0, x1, y1]);
}

// Set or clear all pixels within a closed outline; their centres count, and where it crosses itself they are inside.
export function fillOutline(mask, points, value) {
  const { width, height, pixels } = mask;
  const ys = points.map(([, y]) => y);
  const [y0, y1] = [Math.max(0, Math.floor(Math.min(...ys))), Math.min(height, Math.ceil(Math.max(...ys)))];
  let [x0, x1] = [width, 0];
  for (let y = y0; y < y1; y += 1) {
    const crossings = []; // [x, direction] of the outline with the row of the pixels' centres
    points.forEach(([ax, ay], number) => {
      const [bx, by] = points[(number + 1) % points.length];
      if (ay <= y + 0.5 === by <= y + 0.5) return;
      crossings.push([ax + ((y + 0.5 - ay) / (by - ay)) * (bx - ax), ay < by ? 1 : -1]);
    });
    crossings.sort((a, b) => a[0] - b[0]);
    let turns = 0;
    crossings.slice(0, -1).forEach(([x, direction], number) => {
      turns += direction;
      if (!turns) return;
      const [first, end] = [Math.max(0, Math.ceil(x - 0.5)), Math.min(width, Math.ceil(crossings[number + 1][0] - 0.5))];
      if (first >= end) return;
      pixels.fill(value, y * width + first, y * width + end);
      [x0, x1] = [Math.min(x0, first), Math.max(x1, end)];
    });
  }
  if (value) growBox(mask, [x0, y0, x1, y1]);
}

function growBox(mask, [x0, y0, x1, y1]) {
  if (x1 <= x0 || y1 <= y0) return;
  const b = mask.box ?? [x0, y0, x1, y1];
  mask.box = [Math.min(b[0], x0), Math.min(b[1], y0), Math.max(b[2], x1), Math.max(b[3], y1)];
}
