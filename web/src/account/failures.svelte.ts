/** What a form's last attempt failed of: beside the field that it is about, else above the button. */

import { ApiError } from "../api/problem";
import { told } from "../state/errors.svelte";

const FIELD_OF_CODE: Readonly<Record<string, string>> = {
  invalid_email: "email",
  email_already_registered: "email",
  invalid_password: "password",
  invalid_verification_code: "verification_code",
  wrong_password: "current_password",
};

export class Failure {
  #error = $state.raw<unknown>(null);

  clear(): void {
    this.#error = null;
  }

  note(error: unknown): void {
    this.#error = error;
  }

  /** The field that is at fault. */
  get name(): string | null {
    const error = this.#error;
    if (!(error instanceof ApiError)) return null;
    return FIELD_OF_CODE[error.code] ?? error.fields[0]?.name ?? null;
  }

  of(field: string): string | undefined {
    if (this.name !== field) return undefined;
    return (this.#error instanceof ApiError && this.#error.field(field)) || told(this.#error);
  }

  /** What belongs to none of these fields. */
  besides(...fields: readonly string[]): string | undefined {
    if (this.#error === null || (this.name !== null && fields.includes(this.name))) return undefined;
    return told(this.#error);
  }

  /** Seconds to wait, if the server has told. */
  get retryAfterSeconds(): number | null {
    return this.#error instanceof ApiError ? this.#error.retryAfterSeconds : null;
  }
}
