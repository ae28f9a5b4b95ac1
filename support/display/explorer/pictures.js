/* Finds the ink in a picture: a photo, a scan or a screenshot, with dark ink on light paper or the
   other way round. A shorter version of support/datasets/ink.py, which reads ruled paper, too.
   A plane of numbers is { values: Float32Array(width * height), width, height }. */

// The side of the model's images.
export const SIDE = 28;
export const PIXELS = SIDE * SIDE;
// The longer side, in pixels, of the copy of a picture in which ink is searched.
const PICTURE_SIDE = 300;
// The longer side of the copy on which it is decided whether the ink is dark or light.
const COARSE_SIDE = 50;
// A stroke is narrower than this share of the shorter side; a wider dark area is darker paper.
const WIDEST_STROKE = 0.35;
// Ink is darker than its paper by at least the first share of the paper's brightness, and by more
// than the second share of the darkest ink.
const LEAST_DARKNESS = 0.1;
const STROKE = 0.4;
// Pieces of ink smaller than the first share of the largest one are dust; a piece larger than the
// second share that is not part of the same character is a character of its own.
const DUST = 0.01;
const CHARACTER = 0.2;
// How far from the largest piece another piece of the same character may be, as a share of its size.
const GAP = 0.15;
// A shape is a sheet of paper on a table if its smaller side is above the first share of the
// picture's, its mean thickness above the second share of its own smaller side, and if it fills more
// than the third share of its smallest rectangle: a thick 0 fills less.
const SHEET_SIZE = 0.25;
const SHEET_THICKNESS = 0.25;
const SHEET_FILLS = 0.85;
// In pixels of 28x28: thinner strokes than the first are made as thick as the second.
const THINNEST = 1.6;
const THICKENED = 2.2;
// How far from the middle of 28x28 the centre of mass of an image like MNIST's may be, in pixels.
const CENTRED = 1.5;

/** The greyscale of a picture file, 0 black to 1 white; rejects if the file is no picture. */
export async function greyOf(file) {
  const bitmap = await createImageBitmap(file);
  const longest = Math.max(bitmap.width, bitmap.height);
  const isSmall = bitmap.width === SIDE && bitmap.height === SIDE;
  const scale = isSmall ? 1 : PICTURE_SIDE / longest;
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return onPaper(context.getImageData(0, 0, width, height).data, width, height);
}

/** Greyscale from RGBA; what is transparent becomes the paper that shows the rest best. */
function onPaper(rgba, width, height) {
  const values = new Float32Array(width * height);
  let [light, opaque] = [0, 0];
  const luminance = (i) =>
    (0.299 * rgba[4 * i] + 0.587 * rgba[4 * i + 1] + 0.114 * rgba[4 * i + 2]) / 255;
  for (let i = 0; i < values.length; i++) {
    light += luminance(i) * rgba[4 * i + 3];
    opaque += rgba[4 * i + 3];
  }
  const paper = light > opaque / 2 ? 0 : 1;
  for (let i = 0; i < values.length; i++) {
    const alpha = rgba[4 * i + 3] / 255;
    values[i] = luminance(i) * alpha + paper * (1 - alpha);
  }
  return { values, width, height };
}

/** A 28x28 image that is like MNIST's already, or its negative, as bright ink; null for others. */
export function ifPreprocessed(grey) {
  if (grey.width !== SIDE || grey.height !== SIDE) return null;
  const ink = fromPaper(grey.values, medianOfBorder(grey));
  const box = boxOf(ink, SIDE, 0);
  if (!box || Math.max(box.height, box.width) > 20 || Math.max(...ink) < 0.15) return null;
  const mass = massOf(ink, SIDE);
  const off = Math.max(Math.abs(mass.row - SIDE / 2), Math.abs(mass.column - SIDE / 2));
  return off > CENTRED ? null : ink;
}

/** How far each value is from the paper, in the direction in which values deviate most. */
function fromPaper(values, paper) {
  let [low, high] = [1, 0];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const sign = high - paper > paper - low ? 1 : -1;
  return values.map((value) => Math.max(0, sign * (value - paper)));
}

function median(values) {
  const sorted = Float32Array.from(values).sort();
  return sorted[sorted.length >> 1];
}

function medianOfBorder({ values, width, height }) {
  return median(
    values.filter((_, at) => {
      const [row, column] = [Math.floor(at / width), at % width];
      return row === 0 || column === 0 || row === height - 1 || column === width - 1;
    }),
  );
}

/** The largest (sign 1) or smallest (sign -1) value in the square around each pixel. */
function extreme({ values, width, height }, radius, sign) {
  let result = values;
  for (const [step, length] of [
    [1, width],
    [width, height],
  ]) {
    const source = result;
    result = source.map((_, at) => {
      const place = Math.floor(at / step) % length;
      const last = Math.min(radius, length - 1 - place);
      let best = source[at];
      for (let k = -Math.min(radius, place); k <= last; k++) {
        const value = source[at + k * step];
        if (sign * value > sign * best) best = value;
      }
      return best;
    });
  }
  return { values: result, width, height };
}

/** The mean over 3x3 pixels, which takes away most of a camera's noise. */
function smoothed({ values, width, height }) {
  const result = values.map((_, at) => {
    const [row, column] = [Math.floor(at / width), at % width];
    let [sum, count] = [0, 0];
    for (let y = Math.max(0, row - 1); y <= Math.min(height - 1, row + 1); y++) {
      for (let x = Math.max(0, column - 1); x <= Math.min(width - 1, column + 1); x++) {
        sum += values[y * width + x];
        count++;
      }
    }
    return sum / count;
  });
  return { values: result, width, height };
}

/** The nearest of `length` places. */
const inside = (place, length) => Math.min(Math.max(place, 0), length - 1);

/** Whether small things in a picture are lighter than their surroundings, whatever its shadows. */
function isLightOnDark(grey) {
  const { values, width, height } = shrunk(grey);
  const reach = Math.max(1, Math.floor(Math.min(width, height) / 4));
  let skew = 0;
  values.forEach((value, at) => {
    const [row, column] = [Math.floor(at / width), at % width];
    const around = [];
    for (let y = row - reach; y <= row + reach; y++) {
      for (let x = column - reach; x <= column + reach; x++) {
        around.push(values[inside(y, height) * width + inside(x, width)]);
      }
    }
    skew += (value - median(around)) ** 3;
  });
  return skew > 0;
}

/** A copy with sides of at most about 50 pixels; each pixel is a mean. */
function shrunk(grey) {
  const longest = Math.max(grey.width, grey.height);
  const step = Math.min(Math.ceil(longest / COARSE_SIDE), grey.width, grey.height);
  const [width, height] = [Math.floor(grey.width / step), Math.floor(grey.height / step)];
  const values = Float32Array.from({ length: width * height }, (_, at) => {
    let sum = 0;
    for (let y = 0; y < step; y++) {
      for (let x = 0; x < step; x++) {
        sum +=
          grey.values[(Math.floor(at / width) * step + y) * grey.width + (at % width) * step + x];
      }
    }
    return sum / step ** 2;
  });
  return { values, width, height };
}

/** The brightness of the paper at each pixel, also under strokes: a morphological closing, which
    fills dark areas that are narrower than its square. Shadows go on beyond the border. */
function paperLevel(page, radius) {
  const [width, height] = [page.width + 2 * radius, page.height + 2 * radius];
  const values = Float32Array.from({ length: width * height }, (_, at) => {
    const row = inside(Math.floor(at / width) - radius, page.height);
    return page.values[row * page.width + inside((at % width) - radius, page.width)];
  });
  const closed = extreme(extreme({ values, width, height }, radius, 1), radius, -1).values;
  return page.values.map((_, at) => {
    const row = radius + Math.floor(at / page.width);
    return closed[row * width + radius + (at % page.width)];
  });
}

/** How much darker than the paper around it each pixel is, 0 to 1; the light may vary over the
    page. Also the noise of the paper. */
function darkness(grey) {
  const page = isLightOnDark(grey)
    ? { ...grey, values: grey.values.map((value) => 1 - value) }
    : grey;
  const radius = Math.round((WIDEST_STROKE * Math.min(grey.width, grey.height)) / 2);
  const closed = paperLevel(page, radius);
  const dark = page.values.map((value, i) => Math.max(0, 1 - value / Math.max(closed[i], 0.02)));
  const middle = median(dark);
  const noise = median(dark.map((value) => Math.abs(value - middle)));
  const values = dark.map((value) => Math.max(0, (value - middle) / Math.max(1 - middle, 0.02)));
  return { values, noise };
}

/** The connected pieces of a mask: their pixels, their boxes, whether they touch the border. */
function pieces(mask, width) {
  const height = mask.length / width;
  const seen = new Uint8Array(mask.length);
  const found = [];
  mask.forEach((inked, start) => {
    if (!inked || seen[start]) return;
    const pixels = [start];
    seen[start] = 1;
    const piece = { pixels, top: height, bottom: -1, left: width, right: -1 };
    for (const at of pixels) {
      const [row, column] = [Math.floor(at / width), at % width];
      piece.top = Math.min(piece.top, row);
      piece.bottom = Math.max(piece.bottom, row);
      piece.left = Math.min(piece.left, column);
      piece.right = Math.max(piece.right, column);
      for (let y = Math.max(0, row - 1); y <= Math.min(height - 1, row + 1); y++) {
        for (let x = Math.max(0, column - 1); x <= Math.min(width - 1, column + 1); x++) {
          const next = y * width + x;
          if (!mask[next] || seen[next]) continue;
          seen[next] = 1;
          pixels.push(next);
        }
      }
    }
    piece.onBorder =
      piece.top === 0 ||
      piece.left === 0 ||
      piece.bottom === height - 1 ||
      piece.right === width - 1;
    found.push(piece);
  });
  return found.sort((a, b) => b.pixels.length - a.pixels.length);
}

/** Splits pieces of ink into those of the largest character, and the other large ones. */
function largestCharacter(all) {
  const [largest] = all;
  // What touches the border is the edge of a table or a shadow, unless there is nothing else.
  const free = all.filter((piece) => !piece.onBorder);
  const main =
    free.length && free[0].pixels.length > DUST * largest.pixels.length ? free[0] : largest;
  const size = Math.max(main.bottom - main.top, main.right - main.left) + 1;
  const near = (piece) => {
    const down = Math.max(piece.top, main.top) - Math.min(piece.bottom, main.bottom);
    const across = Math.max(piece.left, main.left) - Math.min(piece.right, main.right);
    // Beside it is another character, unless the two overlap or the piece is small.
    const tall = piece.bottom - piece.top > 0.45 * size;
    return down < GAP * size && across < (tall ? 0 : GAP * size);
  };
  const rest = (main === largest ? all : free).filter((piece) => piece !== main);
  const large = rest.filter((piece) => piece.pixels.length > DUST * main.pixels.length);
  return {
    character: [main, ...large.filter(near)],
    others: large.filter((piece) => {
      return !near(piece) && piece.pixels.length > CHARACTER * main.pixels.length;
    }),
  };
}

/** The ink of the largest character in a picture, 0 paper to 1 ink, and how many other characters
    there are; null if the page is blank. */
export function inkOf(picture) {
  const found = inkOfPage(smoothed(picture));
  if (!found?.sheet) return found;
  return inkOfPage(found.sheet) ?? found;
}

function inkOfPage(grey) {
  const { width } = grey;
  const { values, noise } = darkness(grey);
  const darkest = values.reduce((a, b) => Math.max(a, b), 0);
  if (darkest < Math.max(LEAST_DARKNESS, 6 * noise)) return null;
  const { character, others } = largestCharacter(
    pieces(
      values.map((value) => (value > Math.max(STROKE * darkest, 3 * noise) ? 1 : 0)),
      width,
    ),
  );
  const strokes = new Float32Array(values.length);
  for (const piece of character) for (const at of piece.pixels) strokes[at] = 1;
  const level = median(values.filter((_, at) => strokes[at]));
  // The soft edge of a stroke belongs to it.
  const around = extreme({ ...grey, values: strokes }, 2, 1).values;
  const ink = values.map((value, at) => (around[at] ? Math.min(1, value / level) : 0));
  const box = boxOf(strokes, width, 0.5);
  const thickness = thicknessOf(strokes, width);
  const smaller = Math.min(box.height, box.width);
  const isLarge = smaller > SHEET_SIZE * Math.min(width, grey.height);
  const isThick = thickness > SHEET_THICKNESS * smaller;
  return {
    values: thickened(ink, strokes, width),
    width,
    others: others.length,
    sheet: isLarge && isThick ? sheetOf(grey, character[0]) : null,
  };
}

/** Cuts a sheet out of a picture; what is outside the sheet gets the sheet's brightness. Null if
    the piece is not rectangular. */
function sheetOf(grey, piece) {
  const box = {
    ...piece,
    height: piece.bottom - piece.top + 1,
    width: piece.right - piece.left + 1,
  };
  const rows = Array.from({ length: box.height }, () => [Infinity, -1]);
  for (const at of piece.pixels) {
    const span = rows[Math.floor(at / grey.width) - box.top];
    span[0] = Math.min(span[0], at % grey.width);
    span[1] = Math.max(span[1], at % grey.width);
  }
  if (rectangularity(rows) < SHEET_FILLS) return null;
  const paper = median(Float32Array.from(piece.pixels, (at) => grey.values[at]));
  // Paper and table blend at the sheet's edge.
  const edge = 4;
  const values = new Float32Array(box.width * box.height).fill(paper);
  for (let y = edge; y < box.height - edge; y++) {
    const first = Math.max(rows[y][0], rows[y - edge][0], rows[y + edge][0]) + edge;
    const last = Math.min(rows[y][1], rows[y - edge][1], rows[y + edge][1]) - edge;
    for (let x = first; x <= last; x++) {
      values[y * box.width + x - box.left] = grey.values[(box.top + y) * grey.width + x];
    }
  }
  return { values, width: box.width, height: box.height };
}

/** The share of its smallest rectangle that a shape fills, given its first and last column in each
    row. */
function rectangularity(rows) {
  const area = rows.reduce((sum, [first, last]) => sum + last - first + 1, 0);
  let smallest = Infinity;
  for (let degrees = 0; degrees < 90; degrees += 3) {
    const [cos, sin] = [Math.cos, Math.sin].map((of) => of((degrees * Math.PI) / 180));
    const corners = rows.flatMap(([first, last], y) => [first, last].map((x) => [x, y]));
    const length = (along) => {
      const places = corners.map(along);
      return Math.max(...places) - Math.min(...places) + 1;
    };
    const [across, down] = [([x, y]) => cos * x + sin * y, ([x, y]) => cos * y - sin * x];
    smallest = Math.min(smallest, length(across) * length(down));
  }
  return area / smallest;
}

/** The mean width of strokes: a strip of length l and width w has the area l * w and about 2 l
    pixels at its edge. */
function thicknessOf(strokes, width) {
  let [area, edge] = [0, 0];
  strokes.forEach((inked, at) => {
    if (!inked) return;
    area++;
    if (!(strokes[at - 1] && strokes[at + 1] && strokes[at - width] && strokes[at + width])) edge++;
  });
  return (2 * area) / edge;
}

/** Makes strokes of a thin pen as thick as thin strokes in MNIST; others stay as they are. */
function thickened(ink, strokes, width) {
  const height = ink.length / width;
  const box = boxOf(strokes, width, 0.5);
  const pixel = Math.max(box.height, box.width) / 20;
  const thickness = thicknessOf(strokes, width);
  if (thickness >= THINNEST * pixel) return ink;
  const radius = (THICKENED * pixel - thickness) / 2;
  const result = Float32Array.from(ink);
  const reach = Math.ceil(radius);
  strokes.forEach((inked, at) => {
    if (!inked) return;
    const [row, column] = [Math.floor(at / width), at % width];
    for (let y = Math.max(0, row - reach); y <= Math.min(height - 1, row + reach); y++) {
      for (let x = Math.max(0, column - reach); x <= Math.min(width - 1, column + reach); x++) {
        const soft = radius + 0.5 - Math.hypot(y - row, x - column);
        const place = y * width + x;
        if (soft > result[place]) result[place] = Math.min(1, soft);
      }
    }
  });
  return result;
}

/** The smallest box around all values above a limit; null if there are none. */
function boxOf(values, width, limit) {
  let [top, left, bottom, right] = [Infinity, Infinity, -1, -1];
  values.forEach((value, at) => {
    if (value <= limit) return;
    const [row, column] = [Math.floor(at / width), at % width];
    [top, left] = [Math.min(top, row), Math.min(left, column)];
    [bottom, right] = [Math.max(bottom, row), Math.max(right, column)];
  });
  if (bottom < 0) return null;
  return { top, left, height: bottom - top + 1, width: right - left + 1 };
}

/** The centre of mass, in pixels from the first pixel. */
function massOf(values, width) {
  let [mass, down, across] = [0, 0, 0];
  values.forEach((value, at) => {
    mass += value;
    down += value * Math.floor(at / width);
    across += value * (at % width);
  });
  return { row: down / mass, column: across / mass };
}

/** Scales the ink's bounding box to fit 20 by 20, and centres its mass in 28 by 28, as
    support/datasets/preprocessing.py does; null if there is no ink. */
export function preprocess(ink, width) {
  const box = boxOf(ink, width, 0.3);
  if (!box) return null;
  const scale = 20 / Math.max(box.height, box.width);
  const rows = Math.max(1, Math.round(box.height * scale));
  const columns = Math.max(1, Math.round(box.width * scale));
  const small = new Float32Array(rows * columns);
  // Each cell is the mean of the pixels that it covers, at least one.
  const range = (cell, cells, length) => {
    const from = Math.floor((cell * length) / cells);
    return [from, Math.max(from + 1, Math.floor(((cell + 1) * length) / cells))];
  };
  small.forEach((_, cell) => {
    const [y0, y1] = range(Math.floor(cell / columns), rows, box.height);
    const [x0, x1] = range(cell % columns, columns, box.width);
    for (let y = y0; y < y1; y++) {
      for (let x = x0; x < x1; x++) small[cell] += ink[(box.top + y) * width + box.left + x];
    }
    small[cell] /= (y1 - y0) * (x1 - x0);
  });
  const mass = massOf(small, columns);
  const clip = (shift, room) => Math.min(Math.max(Math.round(shift), 0), room);
  const y0 = clip(SIDE / 2 - mass.row, SIDE - rows);
  const x0 = clip(SIDE / 2 - mass.column, SIDE - columns);
  const brightest = Math.max(...small);
  const digit = new Float32Array(PIXELS);
  small.forEach((value, cell) => {
    const at = (y0 + Math.floor(cell / columns)) * SIDE + x0 + (cell % columns);
    digit[at] = value / brightest;
  });
  return digit;
}
