/** What the example workers run: declared here, without a run, so that inputs and results are checked and described as those of any type. */
import { z } from 'zod'
import { defineTask } from '../../src/index.ts'

export const certificateInspect = defineTask({
  type: 'certificate.inspect',
  description:
    'Reads a bundle of X.509 certificates: whose they are, until when, and whether each is signed by the next. The worker in TypeScript runs it.',
  where: 'worker',
  input: z.strictObject({ pem: z.string().min(1) }),
  result: z.object({
    certificates: z.array(
      z.object({
        subject: z.string(),
        names: z.array(z.string()),
        issuer: z.string(),
        validFrom: z.string(),
        validTo: z.string(),
        sha256: z.string(),
        /** Null: it is the last one, and not signed by itself. */
        signedByNext: z.boolean().nullable(),
      }),
    ),
  }),
  timeoutSeconds: 60,
})

export const textsDuplicates = defineTask({
  type: 'texts.duplicates',
  description: 'Finds the pairs of texts that are nearly the same, by comparing each with each. The worker in Python runs it.',
  where: 'worker',
  input: z.strictObject({ texts: z.array(z.string()).min(2).max(1_000), threshold: z.number().min(0).max(1).default(0.9) }),
  result: z.object({ compared: z.int(), pairs: z.array(z.object({ first: z.int(), second: z.int(), ratio: z.number() })) }),
  timeoutSeconds: 900,
})

export const imageThumbnail = defineTask({
  type: 'image.thumbnail',
  description: 'Scales a PNG, JPEG or GIF, in base64, down to a JPEG of at most that width. The worker in Go runs it.',
  where: 'worker',
  input: z.strictObject({ image: z.string().min(1), width: z.int().min(1).max(2_000), quality: z.int().min(1).max(100).default(85) }),
  result: z.object({ image: z.string(), width: z.int(), height: z.int(), sourceWidth: z.int(), sourceHeight: z.int() }),
  timeoutSeconds: 60,
  concurrency: 16,
})

export default { tasks: [certificateInspect, textsDuplicates, imageThumbnail] }
