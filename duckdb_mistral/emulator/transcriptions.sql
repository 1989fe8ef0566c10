-- /v1/audio/transcriptions: a text that names the recording, in segments or words of one second each when asked.
WITH
  read AS (
    SELECT
      custom_id,
      json_transform(body, '{
        "model": "VARCHAR", "file_url": "VARCHAR", "file_id": "VARCHAR", "language": "VARCHAR", "diarize": "BOOLEAN",
        "timestamp_granularities": ["VARCHAR"]
      }') AS request
    FROM requests
  ),
  recordings AS (
    SELECT *, coalesce(request.file_url, request.file_id) AS text, 'echo: ' || text AS content FROM read
  ),
  parts AS (
    SELECT
      *,
      CASE
        WHEN list_contains(request.timestamp_granularities, 'word') THEN string_split(content, ' ')
        WHEN list_contains(request.timestamp_granularities, 'segment') OR request.diarize THEN [content]
        ELSE []
      END AS parts
    FROM recordings
  )
SELECT
  custom_id,
  text,
  CASE WHEN text IS NULL THEN 'file_url' END AS wrong,
  to_json({
    'model': coalesce(request.model, $model),
    'text': CASE WHEN asks(text, 'empty') THEN '' ELSE content END,
    'language': request.language,
    'segments': list_transform(parts, lambda part, position: {
      'type': 'transcription_segment',
      'text': part,
      'start': position - 1.0,
      'end': position + 0.0,
      'score': NULL::DOUBLE,
      'speaker_id': CASE WHEN request.diarize THEN 'speaker_1' END
    }),
    'usage': {
      'prompt_audio_seconds': tokens(content),
      'prompt_tokens': 1,
      'completion_tokens': tokens(content),
      'total_tokens': 1 + tokens(content)
    }
  }) AS answer
FROM parts
