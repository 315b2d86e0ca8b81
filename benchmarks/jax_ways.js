// The training that benchmarks.playground measures, in jax-js, which npm installs in runs/jax: NetMini
// in NCHW, without running statistics. A `.ref` is one more use of an array, as jax-js wants it.

const JAX = "../runs/jax/node_modules/@jax-js/jax/dist/index.js";

/** For each kind of layer of NetMini: its result, from its input and its learned tensors. */
const layersIn = ({ lax, nn, numpy: np }) => ({
  convolution: (x, [weight]) => lax.convGeneralDilated(x, weight, [1, 1], "VALID"),
  ReLU: (x) => nn.relu(x),
  "max-pooling": (x) => lax.reduceWindow(x, np.max, [2, 2], [2, 2]),
  "average pooling": (x) => np.mean(x, [2, 3]),
  "linear layer": (x, [weight, bias]) => np.dot(x, np.transpose(weight)).add(bias),
  "log-softmax": (x) => nn.logSoftmax(x),
  "batch norm"(x, [weight, bias], { eps }) {
    const everyMap = [[0, 2, 3], { keepdims: true }];
    const centred = x.ref.sub(np.mean(x, ...everyMap));
    const variance = np.mean(np.square(centred.ref), ...everyMap);
    const scaled = centred.div(np.sqrt(variance.add(eps)));
    return scaled.mul(weight.reshape([1, -1, 1, 1])).add(bias.reshape([1, -1, 1, 1]));
  },
});

/** A function that makes a step of training with Nesterov momentum, and returns its loss. */
export async function jaxStep({ table, tensors, batch }, images, labels, { rate, momentum }) {
  const jax = await import(JAX);
  await jax.init("wasm");
  jax.defaultDevice("wasm");
  const np = jax.numpy;
  const forward = layersIn(jax);
  const learned = tensors.map((all) => all.filter(({ isLearned }) => isLearned));
  const arrayOf = ({ numbers, shape }) => np.array(numbers.slice()).reshape(shape);
  const loss = (parameters, x, y) => {
    for (const [n, layer] of table.entries())
      if (n > 0) x = forward[layer.kind](x, parameters[n], layer);
    return x
      .mul(y)
      .sum()
      .mul(-1 / batch);
  };
  const gradients = jax.jit(jax.valueAndGrad(loss));
  const update = jax.jit((weight, velocity, gradient) => {
    const next = velocity.mul(momentum).add(gradient.ref);
    const change = gradient.add(next.ref.mul(momentum));
    return [weight.sub(change.mul(rate)), next];
  });
  const pixels = np.array(images.slice()).reshape([batch, 1, 28, 28]);
  const right = np.array(
    Float32Array.from({ length: 10 * batch }, (_, n) =>
      n % 10 === labels[Math.floor(n / 10)] ? 1 : 0,
    ),
  );
  const answers = right.reshape([batch, 10]);
  let parameters = learned.map((all) => all.map(arrayOf));
  let velocities = learned.map((all) => all.map(({ shape }) => np.zeros(shape)));
  return () => {
    const [value, slopes] = gradients(jax.tree.ref(parameters), pixels.ref, answers.ref);
    const pairs = parameters.map((all, n) =>
      all.map((weight, k) => update(weight, velocities[n][k], slopes[n][k])),
    );
    parameters = pairs.map((all) => all.map(([weight]) => weight));
    velocities = pairs.map((all) => all.map(([, velocity]) => velocity));
    return value.js();
  };
}
