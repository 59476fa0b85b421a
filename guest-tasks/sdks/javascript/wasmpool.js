// An exported function that returns a `result` may throw the result's error, and nothing else: anything else ends the task
// without saying why. With this, an `Error` is an error of the task as well: its text, and its stack in the log.
//
//     export const total = result((values) => { … });
export function result(task) {
  return (...values) => {
    try {
      return task(...values);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      console.error(`${error}\n${error.stack}`);
      throw String(error);
    }
  };
}
